"""`python -m tests.ground_truth.object_server`: a server of the S3 API with an empty bucket; prints where it listens."""

import threading

import boto3
from moto.server import ThreadedMotoServer

from tests.ground_truth.objects import BUCKET


def main() -> None:
    """Serve until killed."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=BUCKET)
    print(f"http://{host}:{port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
