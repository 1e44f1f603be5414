"""Push the weights of a run to a Hub repository: `python training/publish.py --run RUN --repo owner/name`.

Uploads weights.safetensors, README.md (the model card) and validation.png in one commit. The token is the Hub
client's own (`hf auth login` or HF_TOKEN); HF_ENDPOINT sets another Hub.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_url

from scsnet import checkpoint
from scsnet.checkpoint.hub import find_http_error
from training.config.cli import Parser, parse_options
from training.engine.model_card import CARD, PICTURE, WEIGHTS

FILES = (WEIGHTS, CARD, PICTURE)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is uploaded, and where."""

    run: str
    """Folder of a finished run."""
    repo: str
    """Repository on the Hub, owner/name; created if it does not exist."""
    private: bool = False
    """Create the repository as a private one."""
    dry_run: bool = False
    """List what would be uploaded, and stop."""


def find_files(run: Path) -> list[Path]:
    """List the files to upload. Raises FileNotFoundError without weights, ValueError for weights that cannot be loaded."""
    weights = run / WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} does not exist: let the run end, or use export.py")
    checkpoint.load(weights)
    return [run / name for name in FILES if (run / name).is_file()]


def publish(options: Options, files: Sequence[Path]) -> str:
    """Create the repository if needed and push one commit; return its address. Raises the errors of the Hub's client."""
    api = HfApi()
    repo = api.create_repo(options.repo, private=options.private, exist_ok=True)
    operations = [CommitOperationAdd(path.name, str(path)) for path in files]
    commit = api.create_commit(repo.repo_id, operations, commit_message="SCSNet weights")
    return str(commit.commit_url)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and publish."""
    parser = Parser(prog="publish.py", description=__doc__)
    options = parse_options(parser, Options, arguments)
    try:
        hf_hub_url(options.repo, WEIGHTS)  # checks the name, without a call
        if "/" not in options.repo:
            raise ValueError(f"expected --repo owner/name, got {options.repo!r}")
        files = find_files(Path(options.run))
        info = checkpoint.read_info(files[0])
        print(f"{options.repo}: {info.parameters} parameters, {info.dtype}, sha256 {info.sha256}")
        for path in files:
            print(f"  {path.name} {path.stat().st_size / 1e6:.2f} MB")
        for name in set(FILES) - {path.name for path in files}:
            print(f"  without {name}, which {options.run} does not have")
        print("dry run: nothing was sent" if options.dry_run else publish(options, files))
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: an upload that failed
        parser.error(str(error).strip())
    except find_http_error() as error:
        parser.error(f"the connection to {HfApi().endpoint} failed: {error}")


if __name__ == "__main__":
    main()
