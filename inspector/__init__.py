"""dm-inspect: what sparse autoencoders fail to explain, token by token.

Importing this package costs nothing: no torch, no Textual, no click. CONTRIBUTING.md tells who may import whom.
"""

__version__ = "0.1.0"
