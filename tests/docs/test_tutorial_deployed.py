"""The last page of the tutorial: its project as it is deployed, on PostgreSQL and Redis, and its nginx."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import path

from tests.docs import tour
from tests.docs.pages import ROOT, Block, blocks
from tests.docs.walk import TUTORIAL, Walk, environment, steps
from tests.services import PostgreSQL, Redis

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


urlpatterns = [path("", lambda request: HttpResponse())]


@pytest.fixture
def machine() -> Iterator[dict[str, str]]:
    """The environment of a machine with PostgreSQL and Redis."""
    with PostgreSQL() as database, Redis() as redis:
        address, _, name = database.new_database().rpartition("/")
        host, _, port = address.rpartition("@")[2].partition(":")
        yield {
            "SECRET_KEY": "only for this test, and longer than fifty characters of text",
            "SITE_HOST": "127.0.0.1",
            "DATABASE_NAME": name,
            "DATABASE_USER": "postgres",
            "DATABASE_HOST": host,
            "DATABASE_PORT": port,
            "REDIS_URL": redis.url,
            "DJANGO_SUPERUSER_USERNAME": "ada",
            "DJANGO_SUPERUSER_PASSWORD": "tea",
            "DJANGO_SUPERUSER_EMAIL": "ada@example.org",
        }


def in_the_folder(step: Block, folder: Path) -> Block:
    """Return a step whose project is deployed below a folder of the test, which has all rights there."""
    text = step.text.replace('sudo install -d -o "$USER" ', "mkdir -p ").replace("/srv/mysite", str(folder / "srv"))
    return step._replace(text=text)


def on_the_machine(step: Block) -> Block:
    """Return a step without the database and the secrets, which the machine has, and without questions."""
    commands = step.text.replace("\\\n", " ")
    lines = [line for line in commands.splitlines(keepends=True) if not re.match(r"sudo |export (?!DJANGO)", line)]
    text = "".join(lines).replace("manage.py createsuperuser", "manage.py createsuperuser --no-input")
    return step._replace(text=text)


def test_the_database_that_is_made_is_that_of_the_settings() -> None:
    text = "".join(step.text for step in steps("deploy"))
    for name, part in (("DATABASE_USER", r"createuser (\w+)"), ("DATABASE_NAME", r"createdb (\w+)")):
        (made,) = re.findall(part, text)
        assert f'os.environ.get("{name}", "{made}")' in text
    assert set(re.findall(r'os\.environ\["(\w+)"\]', text)) == {"SECRET_KEY", "SITE_HOST"}
    for name in ("SECRET_KEY", "SITE_HOST", "DATABASE_PASSWORD"):
        assert text.index(f"export {name}=") < text.index("python manage.py check --deploy")


def test_the_settings_need_no_server_of_development(tmp_path: Path) -> None:
    walk = Walk(tmp_path, environment())
    pages = [in_the_folder(step, tmp_path) for name in ("chat", "board", "deploy") for step in steps(name)]
    walk.prepare([step for step in pages if step.language == "python" or re.search(r" start(project|app) ", step.text)])
    names = {"DJANGO_SETTINGS_MODULE": "mysite.production", "SITE_HOST": "tea.example.org", "SECRET_KEY": "of the test"}
    walk.environment.update(names)
    # As if it were not installed: an import of daphne fails.
    code = "import sys; sys.modules['daphne'] = None; import mysite.asgi; from django.conf import settings"
    printed = walk.run(f'python -c "{code}; print(settings.INSTALLED_APPS[-3:])"')
    assert printed.splitlines()[-1] == "['django_durable_streams', 'chat', 'orders']"


CERTIFICATES = [step.text for step in steps("deploy") if "openssl req" in step.text]


@pytest.mark.parametrize("command", CERTIFICATES, ids=["by name", "by address"])
def test_the_certificate_for_trying_is_that_of_the_host(command: str, tmp_path: Path) -> None:
    subprocess.run(["bash", "-c", on_this_machine(command, tmp_path)], check=True, capture_output=True)
    (configuration,) = [block.text for block in blocks(TUTORIAL / "deploy.md", "nginx")]
    used = re.findall(r"ssl_certificate(?:_key)? /etc/ssl/(.+);", configuration)
    assert sorted(used) == sorted(file.name for file in tmp_path.iterdir())
    (settings,) = [step.text for step in steps("deploy") if "ALLOWED_HOSTS +=" in step.text]
    (address,) = re.findall(r'ALLOWED_HOSTS \+= \["(.+)"\]', settings)
    assert f'CSRF_TRUSTED_ORIGINS += ["https://{address}"]' in settings
    check = f"openssl x509 -noout -checkhost tea.example.org -checkip {address} -in {tmp_path}/tea.example.org.crt"
    shown = subprocess.run(["bash", "-c", check], check=False, capture_output=True, text=True).stdout
    assert ["does match" in line for line in shown.splitlines()] == [True, address in command]


@pytest.mark.parametrize(
    ("host", "trusted", "status"),
    [
        ("tea.example.org:8443", [], 200),  # nginx passes it on by $http_host
        ("tea.example.org", [], 403),
        ("tea.example.org", ["https://tea.example.org:8443"], 200),
    ],
)
def test_a_form_on_another_port_needs_the_port_in_the_host_or_among_the_origins(
    host: str, trusted: list[str], status: int
) -> None:
    with override_settings(
        ALLOWED_HOSTS=["tea.example.org"],
        CSRF_TRUSTED_ORIGINS=["https://tea.example.org", *trusted],
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    ):
        client = Client(enforce_csrf_checks=True, headers={"x-forwarded-proto": "https", "host": host})
        client.cookies["csrftoken"] = "a" * 32
        headers = {"origin": "https://tea.example.org:8443", "x-csrftoken": "a" * 32}
        with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"]):
            assert client.post("/", headers=headers).status_code == status


def on_this_machine(command: str, folder: Path) -> str:
    """Return a command without the rights of root, with a folder of its own for certificates."""
    return command.replace("sudo ", "").replace("/etc/ssl", str(folder))


def curl_as_a_user(walk: Walk, url: str, *, behind_nginx: bool = False) -> None:
    """Run the console of the page as one shell, in the folder of the project."""
    (console,) = [step.text for step in steps("deploy") if step.language == "console" and "jar" in step.text]
    named = list(tour.steps(console.replace("https://tea.example.org", url)))
    before = [f"cd {walk.folder}"]
    commands = [step.command for step in named]
    if behind_nginx:  # which ends TLS, so the site has another scheme than the server
        before.append("curl() { command curl -H 'X-Forwarded-Proto: https' \"$@\"; }")
        commands = [command.replace("-e $URL/", "-e https://127.0.0.1/") for command in commands]
    outputs = tour.run([*before, *commands], seconds=60)[len(before) :]
    for step, printed in zip(named, outputs, strict=True):
        lines = "\n".join(printed)
        assert tour.agree(step.shown, printed), f"$ {step.command}\n{lines}\n\nthe page shows\n{step.shown}"


def test_curl_is_a_user_of_the_project(tmp_path: Path) -> None:
    walk = Walk(tmp_path, environment())
    walk.prepare(steps("chat"))
    (pattern,) = [step for step in steps("deploy") if "notes/{user.username}" in step.text]
    walk.prepare([pattern])
    with walk.serving() as url:
        curl_as_a_user(walk, url)


@pytest.mark.cluster
def test_both_are_deployed(tmp_path: Path, machine: dict[str, str]) -> None:
    walk = Walk(tmp_path, environment())
    walk.prepare(steps("chat"))
    walk.prepare(steps("board"))
    walk.environment.update(machine)
    walk.prepare(
        [on_the_machine(in_the_folder(step, tmp_path)) for step in steps("deploy") if "doctor" not in step.text]
    )
    assert walk.folder == tmp_path / "srv"
    warnings = re.findall(r"durable_streams\.[WE]\d+", walk.run("python manage.py check --deploy"))
    assert set(warnings) <= {"durable_streams.W024"}  # webhooks, whose packages are installed here
    # The database of the tests does not wait for its disk, which is all that the doctor may find.
    examined = walk.run("python manage.py streams doctor || true")
    assert [line for line in examined.splitlines() if line.startswith("error")] == [
        line for line in examined.splitlines() if "fsync is off" in line
    ]
    assert (walk.folder / "static_root" / "durable_streams" / "follow.js").is_file()
    with walk.serving() as url, httpx.Client(base_url=url, headers={"X-Forwarded-Proto": "https"}) as client:
        assert client.get("/readyz").status_code == client.get("/healthz").status_code == 200
        assert client.get("/readyz", headers={"Host": "localhost"}).status_code == 400
        # As nginx passes it on: the cookies are for HTTPS, which this client does not speak.
        page = client.get("/login/")
        token = page.text.partition('csrfmiddlewaretoken" value="')[2].partition('"')[0]
        cookie = {"Cookie": f"csrftoken={page.cookies['csrftoken']}", "Referer": "https://127.0.0.1/"}
        form = {"csrfmiddlewaretoken": token, "username": "ada", "password": "tea"}
        session = client.post("/login/", data=form, headers=cookie)
        assert session.status_code == 302, session.text
        client.cookies.clear()
        mine = {"Cookie": f"sessionid={session.cookies['sessionid']}; csrftoken={session.cookies['csrftoken']}"}
        room = client.get("/", headers=mine)
        token = room.text.partition('csrfmiddlewaretoken" value="')[2].partition('"')[0]
        form = {"csrfmiddlewaretoken": token, "text": "hello"}
        said = client.post("/say/", data=form, headers={**mine, "Referer": "https://127.0.0.1/"})
        assert said.status_code == 204, said.text
        reply = client.get("/v1/stream/chat/lobby", headers=mine)
        assert reply.json() == [{"author": "ada", "text": "hello"}]
        client.cookies.clear()
        assert client.get("/v1/stream/chat/lobby").status_code == 403
        assert client.get("/board/", headers=mine).status_code == 200
        curl_as_a_user(walk, url, behind_nginx=True)
    assert "/v1/stream/chat/lobby" not in walk.log.read_text()  # an access log would keep tokens of URLs


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
@pytest.mark.parametrize("page", [TUTORIAL / "deploy.md", ROOT / "docs" / "deployment" / "wsgi-site.md"], ids=str)
def test_nginx_accepts_the_configuration(page: Path, tmp_path: Path) -> None:
    assert NGINX is not None
    (block,) = blocks(page, "nginx")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tea", "-days", "1"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    text = re.sub(r"ssl_certificate .+;", f"ssl_certificate {certificate};", block.text)
    text = re.sub(r"ssl_certificate_key .+;", f"ssl_certificate_key {key};", text)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{text}\n}}\n"
    )
    done = subprocess.run([NGINX, "-t", "-c", str(configuration)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
