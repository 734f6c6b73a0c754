"""What decides inside one worker: KV blocks, the prefix cache, continuous batching.

The same objects drive the simulator's step-by-step mode and the engine. They hold no clock
and no tensors: a driver asks for the next step, runs it somehow, and commits it.
"""
