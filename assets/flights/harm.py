"""Hurt a version that the fleet's server serves, to see its canary rolled back; or end that.

python -m assets.flights.harm missed_connection_ewr --engagement 0.1
python -m assets.flights.harm missed_connection_ewr --end
"""

import argparse
import http.client
import json
import os
import sys

DEFAULT_ADDRESS = "127.0.0.1:7435"
TIMEOUT_S = 10.0


def main() -> int:
    """Exit code: 0 when it is done, 1 with a sentence when it is not."""
    parser = argparse.ArgumentParser(prog="python -m assets.flights.harm", description=__doc__)
    parser.add_argument("model", help="whose candidate is hurt")
    parser.add_argument("--version", type=int, default=0, help="another version than the present candidate")
    parser.add_argument("--engagement", type=float, default=0.0, help="share of the engagement that is lost, 0 to 1")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to each answer")
    parser.add_argument("--end", action="store_true", help="hurt it no more")
    parser.add_argument("--address", default=os.environ.get("RUNWAY_SERVING_ADDRESS") or DEFAULT_ADDRESS)
    arguments = parser.parse_args()
    if not arguments.end and not arguments.engagement and not arguments.latency_ms:
        parser.error("say how: --engagement 0.1, --latency-ms 50, or --end")
    ask = {"model_id": arguments.model, "version": arguments.version}
    if not arguments.end:
        ask |= {"engagement": arguments.engagement, "latency_ms": arguments.latency_ms}
    connection = http.client.HTTPConnection(arguments.address, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/harm", json.dumps(ask))
        answer = connection.getresponse()
        told = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"the fleet's server does not answer at {arguments.address}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        print(told.get("error", f"the fleet's server answered {answer.status}"), file=sys.stderr)
        return 1
    harm = told["harm"]
    if harm is None:
        print(f"{arguments.model} is hurt no more")
    else:
        print(
            f"{arguments.model} version {harm['version']} loses {harm['engagement']:.0%} of its engagement and takes "
            f"{harm['latency_ms']:g} ms longer from now on"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
