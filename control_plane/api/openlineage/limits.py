"""How much one sender of OpenLineage events may ask for. Each number says how it was chosen."""

BODY_BYTES_MAX = 8 * 1024 * 1024
"""Of a request as it arrives, compressed or not. The largest events known come from Spark with lineage of every column
of wide tables; they have hundreds of kilobytes."""

DECODED_BYTES_MAX = 16 * 1024 * 1024
"""Of a request after gzip. What unpacks to more is refused while it unpacks, not after."""

EVENT_BYTES_MAX = 4 * 1024 * 1024
"""Of one event. Decoding holds the interpreter for some 25 ms a megabyte at worst, and nobody else is served then."""

EVENTS_PER_BATCH_MAX = 1_000
"""As many runs as one `ReportLineage` takes."""

DATASETS_PER_SIDE_MAX = 10_000
"""Inputs, and outputs, of one event; as in the contract."""

SYMLINKS_MAX = 100
"""Other names of one dataset. Real ones have one or two: a table's place and its name in a catalog."""

NAME_CHARS_MAX = 1_900
"""Of `namespace/name`; somewhat less than the 2,000 characters of an external id."""

RUN_ID_CHARS_MAX = 500
"""As in the contract; real ones are UUIDs."""

VERSION_CHARS_MAX = 500
DESCRIPTION_CHARS_MAX = 4_000
"""As in the contract. Longer descriptions are cut, because nothing is lost that anybody counts on."""

EVIDENCE_CHARS_MAX = 2_000
"""As in the contract. A longer address would not be one when cut, and is left out."""

VIOLATIONS_SHOWN_MAX = 200
"""Of those in one answer. Beyond, the answer says how many there are: nobody reads on, and an answer must not be many
times as large as what was sent."""

IN_HAND_BYTES_MAX = 64 * 1024 * 1024
"""Of bodies that are read, decoded or waiting to be stored at one time; four times what one sender can have.
Beyond, senders are asked to come again."""

IN_HAND_MAX = 512
"""Requests at one time. Answers wait for the log, which takes batches: more at once would only wait longer."""

BODY_S_MAX = 30.0
"""Between the first byte of a request and its last."""

RETRY_AFTER_S = 2
"""What senders are asked to wait. A new leader is there in about as long."""

PARSED_AT_ONCE_BYTES_MAX = 64 * 1024
"""Smaller bodies are decoded where they are, in a millisecond or so; larger ones in a thread."""

DISCARDED_BYTES_MAX = 64 * 1024 * 1024
"""Read of a refused body and thrown away, so that its sender sees the answer. Beyond, the connection is closed."""

DISCARDED_S_MAX = 5.0
"""For the same; a sender that is slower than that is not waiting for an answer."""

IDLE_S_MAX = 30
"""After which a connection that asks for nothing is closed."""

HEADER_BYTES_MAX = 32 * 1024
"""Of the headers of one request."""

BACKLOG = 512
"""Connections that may wait to be accepted."""
