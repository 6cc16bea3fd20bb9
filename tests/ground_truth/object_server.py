"""A server of the S3 API with an empty bucket: `python -m tests.ground_truth.object_server` prints where it listens."""

import threading
import urllib.request

from moto.server import ThreadedMotoServer

from tests.ground_truth.objects import BUCKET


def main() -> None:
    """Serve until killed."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"), timeout=10).close()
    print(url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
