-- What wrk sends, and how it reports. Arguments after the URL: METHOD BODY COOKIES...
-- The requests rotate through COOKIES; an empty one means a request without cookies.

local requests, turn = {}, 0

function init(arguments)
  local method, body = arguments[1], arguments[2]
  for i = 3, #arguments do
    -- What a browser sends, so that heads have a realistic size.
    local headers = {
      ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
      ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
      ["Accept-Language"] = "en-US,en;q=0.5",
      ["Accept-Encoding"] = "gzip, deflate",
    }
    for name, value in pairs(wrk.headers) do
      headers[name] = value
    end
    if arguments[i] ~= "" then
      headers["Cookie"] = arguments[i]
    end
    if body ~= "" then
      headers["Content-Type"] = "application/json"
      headers["Content-Length"] = #body
    end
    requests[#requests + 1] = wrk.format(method, nil, headers, body ~= "" and body or nil)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

-- Times in microseconds. Only the last line that wrk prints is read.
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration": %d, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
