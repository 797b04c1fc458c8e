"""Commands on what lies in the stores: record what is left, delete a study, serve MLflow's own UI."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ablation.cli.group import USER_ERROR, main
from ablation.cli.interruption import interruptible
from ablation.cli.options import json_option, state_option, storage_option, tracking_option
from ablation.cli.say import print_result, print_sentences, refuse, say
from ablation.commands import commands
from ablation.errors import AblationError
from ablation.output import plain, width, wrapped


@main.command(example="quick")
@click.argument("name", metavar="[STUDY]", required=False)
@storage_option
@tracking_option
@state_option
@json_option
def sync(name: str | None, storage: str | None, tracking_uri: str | None, state_dir: Path, as_json: bool) -> None:
    """Record in MLflow what ended while it could not be reached.

    Of one study, or of all of this state folder.
    """
    from ablation.api.places import state_at, tracker_at
    from ablation.cli.tables import sync_json, sync_text
    from ablation.pipeline import sync_study
    from ablation.scheduling import default_storage

    state, tracker = state_at(state_dir), tracker_at(tracking_uri, is_launched=True)
    found, is_refused = [], False
    with interruptible():
        for each in [name] if name else state.begun_studies():
            try:
                url = storage or default_storage(state.folder)
                found.append(sync_study(each, tracker=tracker, storage_url=url, state=state, say=say))
            except AblationError as error:
                is_refused = True
                say(f"Error: {error}")
    if found or as_json or not is_refused:
        print_result(sync_json(found) if as_json else sync_text(found))
    if is_refused:
        sys.exit(USER_ERROR)


@main.command(example="quick --yes")
@click.argument("name", metavar="STUDY")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@storage_option
@tracking_option
@state_option
def delete(name: str, is_sure: bool, storage: str | None, tracking_uri: str | None, state_dir: Path) -> None:
    """Delete a study.

    Its runs go to MLflow's trash; its schedule and its folders are removed for good.
    """
    from ablation.api.places import state_at, tracker_at
    from ablation.cli.tables import deletion_text
    from ablation.coordinator.deletion import delete_study, holdings_of
    from ablation.scheduling import default_storage

    state, tracker = state_at(state_dir), tracker_at(tracking_uri, is_launched=True)
    found = holdings_of(name, tracker=tracker, state=state)
    if not is_sure and not _is_confirmed(f"{deletion_text(found, state.folder)} Delete it?"):
        refuse(f"nothing is deleted: `{commands.shown('delete', name, '--yes')}` does not ask")
    url = storage or default_storage(state.folder)
    deleted = delete_study(name, tracker=tracker, storage_url=url, state=state, say=say)
    print_sentences(
        f"Deleted: {deleted.name}. MLflow keeps its {deleted.runs} runs in the trash until `mlflow gc` is run."
        if deleted.runs
        else f"Deleted: {deleted.name}."
    )


def _is_confirmed(question: str) -> bool:
    try:
        return click.confirm(wrapped(plain(question), width(sys.stderr) - len(" [y/N]: ")), err=True)
    except click.Abort:  # nobody is there to answer
        say("")
        return False


@main.command(example="--port 5001")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; elsewhere needs --basic-auth.")
@click.option("--port", type=click.IntRange(1, 65_535), default=5000, show_default=True, help="Port to listen on.")
@click.option("--basic-auth", "has_basic_auth", is_flag=True, help="Ask for a name and password, as MLflow can.")
@click.option("--allowed-hosts", metavar="NAMES", help="Names it may be reached by, with commas: mlflow.example.org.")
@tracking_option
def ui(host: str, port: int, has_basic_auth: bool, allowed_hosts: str | None, tracking_uri: str | None) -> None:
    """Open the MLflow UI on this study's store (this machine only)."""
    from ablation.api.places import tracker_at
    from ablation.cli.serving import Place, check_place, check_store, serve, study_links

    tracker = tracker_at(tracking_uri)
    uri = str(getattr(tracker, "tracking_uri", ""))
    if uri.startswith(("http://", "https://")):
        print_result("\n".join(study_links(tracker, uri)))
        return
    place = Place(host=host, port=port, has_basic_auth=has_basic_auth, allowed_hosts=allowed_hosts)
    check_place(place)
    check_store(uri)
    links = "\n".join([*study_links(tracker, place.url), "Ctrl-C ends MLflow's server."])
    sys.exit(serve(uri, place, when_ready=lambda: print_result(links)))
