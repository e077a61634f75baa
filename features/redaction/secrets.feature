Feature: Credentials do not reach telemetry

  Scenario Outline: A secret in the <header> header
    Given the client sends the secret "canary-7b1f4e0c" in the header "<header>"
    When a client sends GET /files/
    Then the log line "Request details" has the fields
      | field    | value    |
      | headers.<field> | REDACTED |
    And no secret is found in the telemetry

    Examples:
      | header        | field         |
      | Authorization | authorization |
      | Cookie        | cookie        |
      | X-Api-Key     | x-api-key     |

  Scenario: A secret in the query
    Given "canary-1d9a2c77" is a secret
    When a client sends GET /files/?X-Amz-Signature=canary-1d9a2c77
    Then the trace has a SERVER span "GET /files/"
    And no secret is found in the telemetry

  Scenario: What a file contains is its owner's business
    Given "canary-c0ffee11" is a secret
    When a client sends POST /files/secret.txt?content=canary-c0ffee11
    Then the response status is 200
    And no secret is found in the telemetry
