"""Push the weights of a run to a Hub repository: `python training/publish.py --run RUN --repo owner/name`.

What goes: weights.safetensors, README.md (the model card) and validation.png, in one commit. The token is
the Hub client's own (`hf auth login` or HF_TOKEN); HF_ENDPOINT names another Hub.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # a clone, not installed

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from scsnet import checkpoint
from scsnet.checkpoint.hub import find_http_error
from training.config.cli import Parser, parse_options
from training.engine.model_card import CARD, PICTURE, WEIGHTS

FILES = (WEIGHTS, CARD, PICTURE)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What goes where."""

    run: str = ""
    """Folder of a finished run."""
    repo: str = ""
    """owner/name on the Hub; made if it does not exist."""
    private: bool = False
    """Make a new repository private."""
    message: str = "SCSNet weights"
    """Of the commit."""
    dry_run: bool = False
    """Say what would go, and stop."""


def chosen(run: Path) -> list[Path]:
    """The files that go. Errors: FileNotFoundError; ValueError for weights that cannot be opened."""
    weights = run / FILES[0]
    if not weights.is_file():
        raise FileNotFoundError(
            f"{weights} does not exist: let the run end, or make it with export.py"
        )
    checkpoint.load(weights)
    return [run / name for name in FILES if (run / name).is_file()]


def publish(options: Options) -> str:
    """Make the repository if need be, push one commit; its address. Errors: those of the client."""
    api = HfApi()
    repo = api.create_repo(options.repo, private=options.private, exist_ok=True)
    operations = [CommitOperationAdd(path.name, str(path)) for path in chosen(Path(options.run))]
    return str(
        api.create_commit(repo.repo_id, operations, commit_message=options.message).commit_url
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Options -> a commit on the Hub."""
    parser = Parser(prog="publish.py", description=__doc__)
    options = parse_options(parser, Options, arguments)
    if not options.run or not options.repo:
        parser.error("--run and --repo are needed")
    try:
        hf_hub_url(options.repo, FILES[0])  # checks the name, without a call
        if "/" not in options.repo:
            raise ValueError(f"expected --repo owner/name, got {options.repo!r}")
        files = chosen(Path(options.run))
        info = checkpoint.read_info(files[0])
        print(f"{options.repo}: {info.parameters} parameters, {info.dtype}, sha256 {info.sha256}")
        for path in files:
            print(f"  {path.name} {path.stat().st_size / 1e6:.2f} MB")
        for name in set(FILES) - {path.name for path in files}:
            print(f"  without {name}, which {options.run} does not have")
        print("dry run: nothing was sent" if options.dry_run else publish(options))
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError) as error:
        parser.error(str(error).strip())
    except find_http_error() as error:
        parser.error(f"the connection to {HfApi().endpoint} failed: {error}")
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: an upload that failed
        parser.error(f"{error}: {error.__cause__}" if error.__cause__ else str(error))


if __name__ == "__main__":
    main()
