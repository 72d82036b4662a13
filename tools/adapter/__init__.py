"""What tools/train_adapter.py is made of: photos, questions, the tower, the language model."""
