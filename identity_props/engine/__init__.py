"""How replicas train: as one ensemble, by recorded gradients, or one by one."""
