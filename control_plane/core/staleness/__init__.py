"""Is a model still good, how sure are we, and why.

`policy` (when a model counts as stale), `evidence` (what is known about it), `signals` (four answers from 0
to 1), `data_quality` (faults no retrain mends), `fusion` (one score with its bounds), `confidence` (how
sure), `verdict` (an evaluation, and hysteresis from evaluations to the verdict), `evaluation` (one look at
one model or the whole fleet), `explain` (the same in sentences).
"""
