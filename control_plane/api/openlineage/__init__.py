"""What other systems tell about their runs in OpenLineage, over HTTP: decode, translate, submit, answer."""
