"""`pytest suites/` runs the gate; any other run of pytest leaves this folder out, and says so."""

try:
    from natadv.plugin import opt_in
except ModuleNotFoundError:
    LINE = "natadv is not installed, so no gate can run: pip install natadv"
    collect_ignore_glob = ["*"]

    def pytest_addoption(parser):
        parser.extra_info["suites"] = LINE

    def pytest_terminal_summary(terminalreporter):
        terminalreporter.write_line(LINE)
else:

    def pytest_addoption(pluginmanager):
        opt_in.load(pluginmanager, __file__)
