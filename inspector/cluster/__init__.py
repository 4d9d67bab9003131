"""The same run on several devices: workers that run one program on one target and share its passes, by Ray."""
