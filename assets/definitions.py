"""The module that Dagster loads. Importing it reads the fleet; everything else imports `assets.location`."""

import os

from assets.location import definitions_of

defs = definitions_of(os.environ)
