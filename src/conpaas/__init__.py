"""ConPaaS: a platform for elastic, stateful services on plain virtual machines of any cloud, or on one laptop."""

__version__ = "3.0.0"
