"""The paper's claims, each as one job that measures it."""
