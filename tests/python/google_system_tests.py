"""Runs the system tests of Google's own Python client, as they were published, against Levada.

    PUBSUB_EMULATOR_HOST=127.0.0.1:8085 python tests/python/google_system_tests.py [PYTEST OPTION...]

Needs a server in development mode and `pip install google-cloud-pubsub google-cloud-testutils
pytest pytest-xdist flaky psutil mock`. The tests come out of the source distribution of the installed client,
which pip brings; not a line of them is changed. Ends with pytest's status.

Each test runs over gRPC and over REST. The client itself cannot speak REST to an emulator: it
hands every transport a gRPC channel. So its REST transports are told here where the server is,
and that it speaks plain HTTP; what they send and how they read the answers stays theirs.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

from google.auth.credentials import AnonymousCredentials
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherRestTransport
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberRestTransport

HOST = os.environ["PUBSUB_EMULATOR_HOST"]
VERSION = importlib.metadata.version("google-cloud-pubsub")

# What needs Google's cloud, by a part of its name, and why.
NEEDS_THE_CLOUD = {
    "TestBasicRBAC": "wants keys of service accounts whose roles Google's IAM holds",
}


def plain(transport):
    """A REST transport that goes to the server under test."""

    class Plain(transport):
        def __init__(self, *, channel=None, credentials=None, host=None, **options):
            del channel, credentials, host
            options.pop("credentials_file", None)
            options.pop("scopes", None)
            options.pop("quota_project_id", None)
            super().__init__(host=HOST, credentials=AnonymousCredentials(), url_scheme="http", **options)

    # The tests tell transports by their names.
    Plain.__name__ = transport.__name__
    return Plain


PublisherClient._transport_registry["rest"] = plain(PublisherRestTransport)
SubscriberClient._transport_registry["rest"] = plain(SubscriberRestTransport)


def pytest_collection_modifyitems(config, items):
    """Leaves out what needs the cloud."""
    left_out = [item for item in items if any(name in item.nodeid for name in NEEDS_THE_CLOUD)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def tests_of_the_client(folder):
    """Where `tests/system.py` of the installed version lies."""
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    fetch += ["--no-deps", "--no-binary", ":all:", "--dest", folder]
    subprocess.run([*fetch, f"google-cloud-pubsub=={VERSION}"], check=True)
    (archive,) = pathlib.Path(folder).glob("*.tar.gz")
    with tarfile.open(archive) as content:
        member = next(m for m in content.getmembers() if m.name.endswith("/tests/system.py"))
        content.extract(member, folder, filter="data")
    return pathlib.Path(folder) / member.name


def main():
    with tempfile.TemporaryDirectory() as folder:
        tests = tests_of_the_client(folder)
        # Nothing is signed in with them: the tests ask for the project of the default ones.
        credentials = pathlib.Path(folder) / "credentials.json"
        parts = ("client_id", "client_secret", "refresh_token")
        credentials.write_text(json.dumps({"type": "authorized_user", **{part: "none" for part in parts}}))
        os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(credentials)
        os.environ.setdefault("GOOGLE_CLOUD_PROJECT", "google-system-tests")
        print(f"system tests of google-cloud-pubsub {VERSION}")
        for name, why in NEEDS_THE_CLOUD.items():
            print(f"left out: {name}, which {why}", flush=True)
        # They wait more than they work. Each worker loads this module for what is above.
        os.environ["PYTHONPATH"] = str(pathlib.Path(__file__).parent)
        options = ["-p", pathlib.Path(__file__).stem, "-p", "no:cacheprovider", "-n", "8"]
        command = [sys.executable, "-m", "pytest", *options, "--tb=short", "-ra", *sys.argv[1:], str(tests)]
        return subprocess.run(command, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
