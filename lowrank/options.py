"""Commands and their options, each with its sentence of help."""

import argparse
from collections.abc import Callable

from lowrank import adapters, chat, datasets, jobs
from lowrank.login import login

Run = Callable[[argparse.Namespace], int]
EXIT_TEXT = "exit codes: 0 done, 1 failed, 2 wrong use, 3 the job was cancelled, 124 timeout, 130 Ctrl-C"
LOGIN_TEXT = "LOWRANK_URL, LOWRANK_API_KEY and LOWRANK_TEAM go before what `login` stored."


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="lowrank", description=__doc__, epilog=f"{LOGIN_TEXT} {EXIT_TEXT}")
    made.description = "Datasets, jobs, adapters and chat of a Lowrank server."
    groups = made.add_subparsers(required=True, metavar="COMMAND")
    one = _command(groups, "login", "store the server's address and a key", _login)
    one.add_argument("--url", default="", help="address of the server")
    one.add_argument(
        "--key", default="", help="API key; - reads it from standard input, so that no list of processes shows it"
    )
    _dataset_commands(_group(groups, "datasets", "files of rows"))
    _job_commands(_group(groups, "jobs", "trainings"))
    _adapter_commands(_group(groups, "adapters", "what was trained"))
    _chat_command(groups)
    return made


def _group(groups: argparse._SubParsersAction, name: str, text: str) -> argparse._SubParsersAction:  # type: ignore[type-arg]  # argparse names no public type
    made: argparse.ArgumentParser = groups.add_parser(name, help=text)
    return made.add_subparsers(required=True, metavar="COMMAND")


def _command(groups: argparse._SubParsersAction, name: str, text: str, run: Run) -> argparse.ArgumentParser:  # type: ignore[type-arg]  # as above
    told = f"{text[0].upper()}{text[1:]}."
    made: argparse.ArgumentParser = groups.add_parser(name, help=text, description=told, epilog=EXIT_TEXT)
    made.set_defaults(run=run)
    made.add_argument("--json", action="store_true", help="results as JSON, one object a line")
    made.add_argument("--team", default="", metavar="SLUG", help="work in this team")
    return made


def _login(given: argparse.Namespace) -> int:
    login(address=given.url, key=given.key, team=given.team, as_json=given.json)
    return 0


def _dataset_commands(groups: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]  # as above
    one = _command(groups, "check", "tell whether a file can be trained on, line by line", datasets.check)
    one.add_argument("file")
    one.add_argument("--remote", action="store_true", help="let the server look, also where the trainer is at hand")
    one = _command(groups, "push", "send a file; a large one goes on where it stood", datasets.push)
    one.add_argument("file")
    one.add_argument("--no-wait", action="store_true", help="do not wait until the rows are checked")
    _limited(_command(groups, "ls", "list the team's files of rows", datasets.list_all))


def _limited(one: argparse.ArgumentParser) -> None:
    one.add_argument("--limit", type=_count, help="at most so many")


def _job_commands(groups: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]  # as above
    one = _command(groups, "create", "queue a training", jobs.create)
    one.add_argument("-f", "--file", metavar="SPEC.yaml", help="a spec as `python -m trainer train` takes it")
    one.add_argument("--model", help="the base model, instead of the file's")
    one.add_argument("--dataset", help="a file here, or the id of one on the server, instead of the file's")
    one.add_argument("--validation", metavar="DATASET", help="rows to measure on")
    one.add_argument("--name", help="what the job and its adapter are called")
    one.add_argument("--preset", help="quick, balanced or thorough")
    one.add_argument("--wait", action="store_true", help="until it has ended; its result is the exit code")
    one.set_defaults(quiet=False)
    _timed(one)
    _limited(_command(groups, "ls", "list the team's jobs, the newest first", jobs.list_all))
    for name, text, quiet in (
        ("watch", "show a job's progress until it has ended", False),
        ("wait", "wait until a job has ended", True),
    ):
        one = _command(groups, name, text, jobs.wait)
        one.add_argument("job")
        one.set_defaults(quiet=quiet)
        _timed(one)
    one = _command(groups, "logs", "what happened to a job", jobs.logs)
    one.add_argument("job")
    one.add_argument("-f", "--follow", action="store_true", help="until it has ended")
    for name in ("cancel", "pause", "resume"):
        one = _command(groups, name, f"{name} a job", jobs.change)
        one.add_argument("job")
        one.set_defaults(action=name)


def _timed(one: argparse.ArgumentParser) -> None:
    one.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="wait no longer, and leave the job running")


def _adapter_commands(groups: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]  # as above
    one = _command(groups, "pull", "download an adapter as a folder that PEFT loads", adapters.pull)
    one.add_argument("model", help="its model name, such as ft:base:team:name:0123456789ab")
    one.add_argument("--out", help="where to, instead of a folder of its name here")
    one.add_argument("--zip", action="store_true", help="keep it packed")
    one = _command(groups, "push", "bring in an adapter that was made elsewhere", adapters.push)
    one.add_argument("path", help="the folder that PEFT saved, or a .zip or .tar.gz of it")
    one.add_argument(
        "--base", default="", metavar="MODEL", help="the base model, where the adapter's own name misleads"
    )
    one.add_argument("--name", default="", help="what it is called, instead of the folder's name")
    _command(groups, "ls", "list the adapters that the team may use", adapters.list_all)


def _chat_command(groups: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]  # as above
    one = _command(groups, "chat", "ask a model; without a question, talk with it", chat.chat)
    one.add_argument("text", nargs="?", default="")
    one.add_argument("-m", "--model", required=True, help="a base model or an adapter, as `adapters ls` names it")
    one.add_argument("--system", default="", help="the system prompt")
    one.add_argument("--temperature", type=float, help="0 for the likeliest answer")
    one.add_argument("--max-tokens", type=_count, help="the longest answer")
    one.add_argument("--seed", type=int, help="the same seed draws the same answer")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value
