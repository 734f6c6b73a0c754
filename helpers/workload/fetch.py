"""Download the public request traces and check them; nothing else in the course needs the network."""

import logging
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import InputError

RAW_URL = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Source:
    """A public trace at a fixed commit. `sha256` is of the file as it is used: uncompressed.

    `citation` is the attribution its authors ask for.
    """

    repository: str
    commit: str
    path: str
    sha256: str
    rows: int
    licence: str
    citation: str

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]

    def url(self, base: str) -> str:
        return f"{base.rstrip('/')}/{self.repository}/{self.commit}/{self.path}"


_MOONCAKE = ("kvcache-ai/Mooncake", "3b5a594133958449a1feaf1c9e0fc1b553e34a28")
_AZURE = ("Azure/AzurePublicDataset", "b469a113cedca53ddc3bdea71a143dc4b7d8700c")
_FAST25 = "Qin et al., Mooncake: Trading More Storage for Less Computation, FAST'25"
_SPLITWISE = "Patel et al., Splitwise: Efficient generative LLM inference using phase splitting, ISCA 2024"

SOURCES: dict[str, Source] = {
    "mooncake_conversation": Source(
        *_MOONCAKE,
        "FAST25-release/traces/conversation_trace.jsonl",
        "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
        12_031,
        "Apache-2.0",
        _FAST25,
    ),
    "mooncake_synthetic": Source(
        *_MOONCAKE,
        "FAST25-release/traces/synthetic_trace.jsonl",
        "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131",
        3_993,
        "Apache-2.0",
        _FAST25,
    ),
    "azure2023_code": Source(
        *_AZURE,
        "data/AzureLLMInferenceTrace_code.csv",
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
        8_819,
        "CC-BY-4.0",
        _SPLITWISE,
    ),
    "azure2023_conv": Source(
        *_AZURE,
        "data/AzureLLMInferenceTrace_conv.csv",
        "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
        19_366,
        "CC-BY-4.0",
        _SPLITWISE,
    ),
}


def fetch(name: str, to: str | Path | None = None, base_url: str = RAW_URL, timeout_s: float = 60.0) -> Path:
    """Download a trace into `to` (the platform's cache folder unless given) and return its path.

    A file already there with the right sha256 is used as it is. A download whose sha256 differs is
    not kept. `base_url` names a mirror with the same layout (owner/repository/commit/path).
    Raises `InputError` for an unknown name, a failed download or a wrong checksum.
    """
    source = source_of(name)
    pooch = _pooch()
    folder = Path(to) if to is not None else cache_dir()
    url = source.url(base_url)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"sha256:{source.sha256}",
            fname=source.file_name,
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=timeout_s),
        )
    except ValueError as error:
        if "hash" not in str(error):
            raise InputError(f"{url}: cannot be fetched ({error}); give an http or https address") from None
        wanted = source.sha256[:12]
        raise InputError(
            f"{url}: the sha256 of the download is not {wanted}...; it was not kept, try again or another mirror"
        ) from None
    except OSError as error:
        response = getattr(error, "response", None)
        why = f"HTTP status {response.status_code}" if response is not None else type(error).__name__
        raise InputError(
            f"{url}: could not be fetched into {folder} ({why}); check network, folder and mirror"
        ) from None
    finally:
        logger.setLevel(level)
    return Path(path)


def fetched(name: str, to: str | Path | None = None) -> Path | None:
    """Where a trace lies if it was fetched before, else None; no network and no check."""
    path = (Path(to) if to is not None else cache_dir()) / source_of(name).file_name
    return path if path.is_file() else None


def source_of(name: str) -> Source:
    if name not in SOURCES:
        raise InputError(f"there is no public trace {name!r} to fetch; use {', '.join(SOURCES)}")
    return SOURCES[name]


def cache_dir() -> Path:
    """The platform's cache folder for this course."""
    return Path(_pooch().os_cache("hybrid-serving")) / "traces"


def _pooch():
    try:
        import pooch
    except ImportError:
        raise InputError("fetching traces needs the package pooch; install it with: pip install pooch") from None
    return pooch
