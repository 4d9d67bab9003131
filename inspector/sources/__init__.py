"""The only place that knows transformer-lens, sae-lens, datasets and file formats of text and weights."""
