"""Claim: each alert fires on series that mean trouble and on no others (alerts_test.yaml, by promtool), asks for metrics that
the gateway has, and is explained in docs/operations.md."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml
from manifests import DEPLOY, ROOT

HERE = pathlib.Path(__file__).parent


def groups():
    return yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["spec"]["groups"]


class Alerts(unittest.TestCase):
    def test_they_fire_when_they_should(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}))
            shutil.copy(HERE / "alerts_test.yaml", folder)
            command = ["promtool", "test", "rules", "alerts_test.yaml"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_is_tested_and_explained(self):
        tests = yaml.safe_load((HERE / "alerts_test.yaml").read_text())["tests"]
        looks = [each for test in tests for each in test["alert_rule_test"]]
        fired = {each["alertname"] for each in looks if each["exp_alerts"]}
        silent = {each["alertname"] for each in looks if not each["exp_alerts"]}
        operations = (ROOT / "docs" / "operations.md").read_text().lower()
        for group in groups():
            for rule in group["rules"]:
                with self.subTest(alert=rule["alert"]):
                    self.assertIn(rule["alert"], fired)
                    self.assertIn(rule["alert"], silent)
                    anchor = rule["annotations"]["runbook"].partition("#")[2]
                    self.assertRegex(operations, rf"(?m)^#+ .*\b{re.escape(anchor)}\b")

    def test_those_of_the_guide_are_there(self):
        found = {rule["alert"] for group in groups() for rule in group["rules"]}
        self.assertLessEqual({"MCPGatewayDown", "MCPGatewayHighLatency", "MCPGatewayCircuitBreakerOpen"}, found)


if __name__ == "__main__":
    unittest.main()
