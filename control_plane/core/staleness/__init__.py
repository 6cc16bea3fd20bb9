"""Is a model still good, how sure are we, and why.

`policy` and `guardrails` (when a model counts as stale), `evidence` (what is known about it; `stored` keeps it for
replays), `signals`, `input_drift`, `performance` (answers from 0 to 1), `slices`, `upstreams` (parts of the data,
embeddings it consumes), `data_quality` (faults no retrain mends), `fusion` (one score with its bounds), `levels` (from
signals to a level), `confidence` (how sure), `would_change` and `forecast` (what would bring another level, and when),
`evaluation` (one look at one model or the whole fleet), `verdict` (what a look says, and hysteresis from looks to the
verdict), `reasons` and `explain` (the same in sentences).
"""
