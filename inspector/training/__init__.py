"""SAEs trained on a model, or on the error of another SAE: blocks of activations, learners, checkpoints, files."""
