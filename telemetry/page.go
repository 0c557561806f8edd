package telemetry

import "html/template"

// page is what a person sees who opens the metrics address in a browser.
var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>wholefs {{.}}</title>
<h1>wholefs</h1>
<p>{{.}}</p>
<ul>
<li><a href="/metrics">metrics</a> for Prometheus</li>
<li><a href="/healthz">health</a>: whether the mount answers</li>
</ul>
</html>
`))
