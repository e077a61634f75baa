@rest-api
Feature: The documented API Gateway event
  The event in the service's documentation asks for /openapi.json. Its X-Amzn-Trace-Id header has a Root and nothing else,
  as API Gateway adds it; Lambda keeps the Root and gives the runtime a parent to hang on.

  Scenario: It yields one correlated trace
    When API Gateway delivers the event "documented-event.json"
    Then the response status is 200
    And the response header "content-type" is application/json
    And the trace ID is that of the event's X-Amzn-Trace-Id header
    And the trace hangs on the span in the runtime's trace header
    And the trace has the shape
      """
      SERVER    GET /{proxy+}      faas.trigger=http  http.response.status_code=200
        SERVER  GET /openapi.json  http.response.status_code=200
      """
    And the request is correlated

  Scenario: Its headers are searchable fields of a log line that belongs to the trace
    When API Gateway delivers the event "documented-event.json"
    Then the log line "Request details" has the fields
      | field                             | value                                         |
      | method                            | GET                                           |
      | path                              | /openapi.json                                 |
      | headers.accept                    | application/json,*/*                          |
      | headers.cloudfront-viewer-country | US                                            |
      | headers.host                      | n8484inss8.execute-api.us-west-2.amazonaws.com |
    And the log line "Request details" belongs to the span "GET /openapi.json"
    And every log line of the request carries the trace ID and the ID of a span in it

  Scenario: The invocation's span says which function and which invocation it was
    When API Gateway delivers the event "documented-event.json"
    Then the span "GET /{proxy+}" has the attributes
      | attribute          | value                   |
      | faas.trigger       | http                    |
      | faas.invocation_id | /[0-9a-f-]{36}/         |
      | faas.coldstart     | true                    |
      | cloud.account.id   | "643884464387"          |
      | cloud.resource_id  | /arn:aws:lambda:us-west-2:643884464387:function:serverless-axum.*/ |
    And it was a cold start
