pytest_plugins = ["natadv.pytest_plugin"]
