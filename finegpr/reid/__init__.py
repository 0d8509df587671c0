"""Person re-identification: the network, its training, and its evaluation."""
