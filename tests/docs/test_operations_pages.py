"""The commands of an operator work with the settings of the tutorial."""

import asyncio
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from django.test import Client, override_settings
from django.urls import path

from django_durable_streams.contrib.ai.answers import Chat, Run
from django_durable_streams.health import healthz, readyz
from django_durable_streams.models import DatabaseIdentity, Stream
from django_durable_streams.protocol.errors import OffsetGone
from tests.docs.pages import PAGES, ROOT, blocks
from tests.listening import Listener
from tests.management.commands import streams

DEPLOYMENT = ROOT / "docs" / "deployment"

urlpatterns = [path("healthz", healthz), path("readyz", readyz)]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["healthz", "readyz"])
def test_probes_must_name_a_host_of_the_project(name: str) -> None:
    with override_settings(
        ALLOWED_HOSTS=["example.org"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ):
        assert Client().get(f"/{name}", headers={"host": "127.0.0.1:8000"}).status_code == 400
        assert Client().get(f"/{name}", headers={"host": "example.org"}).status_code == 200


@pytest.mark.parametrize("page", ["health", "upgrades", "wsgi-site"])
def test_every_command_that_asks_a_process_by_its_address_names_a_host(page: str) -> None:
    texts = [block.text for block in blocks(DEPLOYMENT / f"{page}.md", "sh")]
    asked = [text for text in texts if "http://127.0.0.1" in text]
    assert asked
    assert [text.count("--header 'Host: ") for text in asked] == [text.count("http://127.0.0.1") for text in asked]


async def test_the_loop_of_a_rolling_restart_waits_until_a_server_is_ready(tmp_path: Path) -> None:
    (loop,) = [block.text for block in blocks(DEPLOYMENT / "upgrades.md", "sh") if "until curl" in block.text]
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        is_ready = len(requests) > 2 and b"Host: example.org\r\n" in requests[-1]
        status = b"200 OK" if is_ready else b"503 Away"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    async with Listener(answer) as server:
        units = re.sub(r"streams@8000 streams@8001", f"streams@{server.port}", loop)
        script = f"systemctl() {{ echo $@ >> {tmp_path}/called; }}\n{units}"
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", script], timeout=60, check=True, capture_output=True
        )
    assert len(requests) == 3, done.stderr
    assert (tmp_path / "called").read_text() == f"restart streams@{server.port}\n"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("short", "kind", "raw", "data"),
    [("json", "application/json", "", '{"n":1}\n{"n":2}\n'), ("text", "text/plain", " --raw", "one\n\ntwo")],
)
def test_clients_begin_again_at_a_new_stream_with_the_restored_data(
    short: str, kind: str, raw: str, data: str, tmp_path: Path
) -> None:
    (block,) = [one.text for one in blocks(ROOT / "docs" / "operations.md", "sh") if "< chat-42.ndjson" in one.text]
    read, delete, append = block.replace("python manage.py streams ", "").splitlines()
    stream = Stream.objects.create(path="chat/42", content_type=kind)
    stream.append_many([{"n": 1}, {"n": 2}] if short == "json" else ["one\n", "\n", "two"])
    lost = stream.next_offset
    file = tmp_path / "file"
    file.write_text(streams(*shlex.split(read.removesuffix(" > chat-42.ndjson"))))
    assert file.read_text() == data
    streams(*shlex.split(delete))
    command = append.removesuffix(" < chat-42.ndjson").replace("--create json", f"--create {short}{raw}")
    streams(*shlex.split(command), stdin=file.read_bytes())
    assert streams("read", "chat/42") == data
    stream = Stream.objects.get(path="chat/42")
    stream.append({"n": "long" * 9} if short == "json" else "long" * 9)  # past the old offset
    with pytest.raises(OffsetGone):
        list(stream.read(lost))


def test_every_doctor_that_reads_a_url_names_who_reads() -> None:
    commands = [
        line
        for page in PAGES
        for block in blocks(page, "sh", "console")
        for line in block.text.replace("\\\n", " ").splitlines()
        if "doctor --url" in line
    ]
    assert len(commands) >= 3
    assert [command for command in commands if "--user" not in command and "--header" not in command] == []


@pytest.mark.django_db
def test_the_daily_jobs_run() -> None:
    """Old chats go with their rows, others stay, and nobody is asked."""
    (block,) = [block.text for block in blocks(ROOT / "docs" / "commands.md", "sh") if "/etc/cron.d" in block.text]
    _, *jobs = block.splitlines()
    commands = [job.partition("manage.py streams ")[2] for job in jobs]
    assert all(re.match(r"\d+ \d+ \* \* \* www-data cd /srv/mysite && ", job) for job in jobs)
    chat, _ = (
        Stream.objects.create(path=path_of_stream, content_type="application/json")
        for path_of_stream in ("chats/1/a", "board")
    )
    Run.objects.create(chat=Chat.objects.create(stream=chat))
    for age, left in (("30d", ["board", "chats/1/a"]), ("0s", ["board"])):
        for command in commands:
            arguments, _, rest = command.replace("30d", age).partition(" > ")
            assert rest == "/dev/null"
            streams(*shlex.split(arguments))
        assert sorted(stream.path for stream in Stream.objects.alive()) == left
        assert Chat.objects.count() == Run.objects.count() == len(left) - 1


def test_the_daily_jobs_have_the_environment_of_the_file(tmp_path: Path) -> None:
    jobs = [
        line.partition("www-data ")[2].partition(" > ")[0]
        for block in blocks(ROOT / "docs" / "commands.md", "sh")
        if "/etc/cron.d" in block.text
        for line in block.text.splitlines()[1:]
    ]
    (file,) = [one.text for one in blocks(DEPLOYMENT / "systemd.md", "sh") if one.text.startswith("# /etc/mysite.env")]
    (tmp_path / "mysite.env").write_text(file)
    values = dict(re.findall(r"^(\w+)='([^'\n]*)'$", file, re.MULTILINE))  # what systemd reads
    assert len(values) == len(file.splitlines()) - 1
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nenv -0\n")
    python.chmod(0o755)
    assert jobs
    for job in jobs:
        command = job.replace("/srv/mysite", str(tmp_path)).replace("/etc/mysite.env", f"{tmp_path}/mysite.env")
        done = subprocess.run(["sh", "-c", command], env={}, capture_output=True, text=True, check=True)
        has = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
        assert {name: has.get(name) for name in values} == values


def test_the_environment_file_has_what_the_settings_of_the_tutorial_need() -> None:
    page = ROOT / "docs" / "tutorial" / "deploy.md"
    (exported,) = [block.text for block in blocks(page, "sh") if "export " in block.text]
    (file,) = [one.text for one in blocks(DEPLOYMENT / "systemd.md", "sh") if one.text.startswith("# /etc/mysite.env")]
    names = re.findall(r"^export (\w+)=", exported, re.MULTILINE)
    assert sorted(names) == sorted(re.findall(r"^(\w+)=", file, re.MULTILINE))
    needed = re.findall(r'os\.environ\["(\w+)"\]', page.read_text())
    assert {"DJANGO_SETTINGS_MODULE", *needed} <= set(names)


@pytest.mark.django_db
def test_a_copy_gets_a_new_identity_by_the_commands_of_the_page() -> None:
    (block,) = [one.text for one in blocks(ROOT / "docs" / "operations.md", "sh") if "identity" in one.text]
    command = block.removeprefix("python manage.py streams ").split()
    before = DatabaseIdentity.objects.get().value
    streams(*command, "--no-input")
    assert DatabaseIdentity.objects.get().value != before


def test_the_environment_of_containers_names_the_other_containers() -> None:
    page = DEPLOYMENT / "containers.md"
    (compose,) = [block.text for block in blocks(page, "yaml")]
    names = dict(re.findall(r"`(DATABASE_HOST|REDIS_URL)=(?:redis://)?(\w+)", page.read_text()))
    assert names == {"DATABASE_HOST": "postgres", "REDIS_URL": "redis"}
    settings = (ROOT / "docs" / "tutorial" / "deploy.md").read_text()
    for name, service in names.items():
        assert f'os.environ.get("{name}"' in settings
        assert f"\n  {service}:\n    image:" in compose
