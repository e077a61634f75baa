@gateway
Feature: A request reaches the API whole, whichever event it travels in
  REST API, HTTP API, load balancer and function URL write paths, queries, cookies and bodies each in their own way.

  Scenario: What is percent-encoded in a query arrives decoded once
    When a client sends GET /files/?directory_path=a%26b%20c%3D%C3%A9
    Then the response status is 200
    And the log line "Request details" has the fields
      | field                       | value        |
      | query_params.directory_path | "a&b c=é"    |
    And the request is correlated

  Scenario: What is percent-encoded in a path arrives decoded once
    When a client sends POST /files/a%20b-%C3%A9.txt?content=x
    Then the response status is 200
    And the response body is the JSON
      """
      {"path": "a b-é.txt"}
      """
    And the request is correlated

  Scenario: The client's address is the one that the gateway saw
    When a client sends GET /files/
    Then the span "GET /files/" has the attributes
      | attribute      | value        |
      | client.address | 203.0.113.10 |

  Scenario: A body in JSON is no reason to fail
    Given the client sends the header "Content-Type" with the value "application/json"
    When a client sends POST /files/body.json?content=x with the body
      """
      {"key": "value"}
      """
    Then the response status is 200
    And the request is correlated

  Scenario: Cookies arrive, and are redacted
    Given the client sends the header "Cookie" with the value "theme=dark; session=canary-33aa51c0"
    And "canary-33aa51c0" is a secret
    When a client sends GET /files/
    Then the log line "Request details" has the fields
      | field          | value    |
      | headers.cookie | REDACTED |
    And no secret is found in the telemetry

  Scenario: A response that is no text arrives whole
    When a client sends GET /
    Then the response status is 200
    And the response header "content-type" is text/html; charset=utf-8
