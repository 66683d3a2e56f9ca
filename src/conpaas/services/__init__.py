"""The service types that come with ConPaaS, one folder each."""
