Feature: Log lines lead to the span that they were written in

  Scenario: Every line of a request names a span of its trace
    When a client sends GET /files/missing.txt
    Then every log line of the request carries the trace ID and the ID of a span in it

  Scenario: Request and response are logged inside the server's span, with searchable fields
    Given the client sends the header "Accept" with the value "text/x-tracegate"
    When a client sends GET /files/?directory_path=a
    Then the log line "Request details" has the fields
      | field                       | value            |
      | method                      | GET              |
      | path                        | "/files/"        |
      | query_params.directory_path | a                |
      | headers.accept              | text/x-tracegate |
      | service.name                | serverless-axum  |
    And the log line "Response details" has the fields
      | field       | value |
      | status_code | 200   |
    And the log line "Request details" belongs to the span "GET /files/"
    And the log line "Response details" belongs to the span "GET /files/"

  Scenario: Stdout and OTLP tell the same
    When a client sends GET /files/
    Then the log lines and the exported log records agree

  Scenario: Lines of concurrent requests do not bleed into each other
    When 16 clients send GET /files/?directory_path=b at the same time
    Then every log line of the request carries the trace ID and the ID of a span in it

  Scenario: Requests at the same time keep their spans and lines apart
    When a client sends GET /files/?directory_path=c
    And 16 clients send GET /files/?directory_path=c at the same time
    Then the requests at the same time do not mix
    And the request is correlated

  Scenario: Nothing but structured lines is written
    When a client sends GET /healthcheck
    Then every log line is structured
