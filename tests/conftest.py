"""An S3 server of this process, for the tests of every ring."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Store:
    """A bucket, and how to put things into it."""

    address = "s3://worlds"

    def __init__(self, client: Any) -> None:
        self.client = client
        client.create_bucket(Bucket="worlds")

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket="worlds", Key=key, Body=data)

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Copy a folder; returns the copy's address."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.address}/{prefix}"


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """The server is found through the environment, as a user's is."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield Store(boto3.client("s3", region_name="us-east-1"))
    server.stop()
