"""The Director: users, applications, credits, the CA and the clouds."""
