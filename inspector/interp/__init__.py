"""What latents stand for, said by a language model and held against text it has not seen.  Paper, Sec. 5.2, Fig. 7.

Data flows: contexts -> windows -> examples of each latent -> an explanation -> questions about other examples -> score.
A judge is any OpenAI-style chat endpoint, or a model on disk; its answers are kept, so that nothing is asked twice.
"""
