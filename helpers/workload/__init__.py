"""What arrives: requests, their arrival times, lengths, shared prefixes and conversations."""
