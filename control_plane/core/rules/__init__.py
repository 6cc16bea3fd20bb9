"""Rules in CEL: what an owner wants to follow from a look at a model.

`types` are the data, `context` the names a rule may use, `cel` compiles and evaluates, `outcome` says which of the
matching rules holds, `book` keeps every version of every rule.
"""
