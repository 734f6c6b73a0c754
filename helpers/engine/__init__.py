"""The inference engine that the labs serve with: model, kernels, KV pages, runner."""
