@lambda
Feature: The life of an execution environment
  Lambda keeps an environment for later invocations, and shuts it down when none has come for a while.

  Scenario: A warm start after a cold one, and a cold one after the environment was recycled
    Given the next invocation is a cold start
    When a client sends GET /healthcheck
    Then it was a cold start
    When a client sends GET /healthcheck
    Then it was a warm start
    And invocations 1 and 2 were in the same execution environment
    When Lambda shuts the idle execution environment down
    And a client sends GET /healthcheck
    Then it was a cold start
    And invocations 2 and 3 were in different execution environments
    And the request is correlated

  Scenario: What a caller says of itself does not disturb the trace
    Given the caller's client context is
      """
      {
        "client": {
          "installation_id": "i", "app_title": "files", "app_version_name": "1", "app_version_code": "1",
          "app_package_name": "example.files"
        },
        "custom": {"tenant": "a"}
      }
      """
    And the caller has the Cognito identity "us-west-2:1f9c7e52" of the pool "us-west-2:e5b27f40"
    When a client sends GET /healthcheck
    Then the response status is 200
    And the request is correlated
