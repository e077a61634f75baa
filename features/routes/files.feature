Feature: Every route leaves one whole trace
  Written once; a client's request is an HTTP call to a process or a container, and an API Gateway event to a function.

  @not-workers
  Scenario: A file is written, read, listed and deleted
    When a client sends POST /files/a.txt?content=hello
    Then the response status is 200
    And the response body is the JSON
      """
      {"path": "a.txt"}
      """
    And the trace has a SERVER span "POST /files/{path}" with status Unset
    And the request is correlated
    When a client sends GET /files/a.txt
    Then the response status is 200
    And the response header "content-type" is text/plain; charset=utf-8
    And the response body is "hello"
    And the trace has a SERVER span "GET /files/{path}" with status Unset
    And the request is correlated
    When a client sends GET /files/
    Then the response status is 200
    And the response body contains "a.txt"
    And the trace has a SERVER span "GET /files/" with status Unset
    And the request is correlated
    When a client sends DELETE /files/a.txt
    Then the response status is 200
    And the trace has a SERVER span "DELETE /files/{path}" with status Unset
    And the request is correlated

  Scenario Outline: <route> answers <status>
    When a client sends <method> <target>
    Then the response status is <status>
    And the trace has a SERVER span "<method> <route>" with the attributes
      | attribute                 | value    |
      | http.request.method       | <method> |
      | http.route                | "<route>" |
      | http.response.status_code | <status> |
    And the trace is whole
    And the request is correlated

    Examples:
      | method | target                       | route         | status |
      | GET    | /healthcheck                 | /healthcheck  | 200    |
      | GET    | /openapi.json                | /openapi.json | 200    |
      | GET    | /                            | /             | 200    |
      | GET    | /redoc                       | /redoc        | 200    |
      | GET    | /files/?directory_path=nodir | /files/       | 200    |
      | POST   | /files/a.txt                 | /files/{path} | 422    |

  @not-bucket
  Scenario: A listing is one server span with one storage span below it
    When a client sends GET /files/
    Then the trace has a SERVER span "GET /files/" with the attributes
      | attribute                 | value   |
      | http.request.method       | GET     |
      | http.route                | "/files/" |
      | url.path                  | "/files/" |
      | http.response.status_code | 200     |
    And the span "/ListObjectsV2$/" is a child of the span "GET /files/"

  @http @not-bucket
  Scenario: A process's trace has exactly these two spans
    When a client sends GET /files/
    Then the trace has the shape
      """
      SERVER      GET /files/        http.response.status_code=200
        INTERNAL  /.*ListObjectsV2/
      """

  @rest-api
  Scenario: A function's trace has the invocation around them, named by the resource of the REST API
    When a client sends GET /files/
    Then the trace has the shape
      """
      SERVER        GET /{proxy+}      faas.trigger=http
        SERVER      GET /files/        http.response.status_code=200
          INTERNAL  /.*ListObjectsV2/
      """

  @lambda @not-rest-api
  Scenario: Where the gateway has no route the invocation is named by the method
    When a client sends GET /files/
    Then the trace has the shape
      """
      SERVER        GET                faas.trigger=http
        SERVER      GET /files/        http.response.status_code=200
          INTERNAL  /.*ListObjectsV2/
      """
