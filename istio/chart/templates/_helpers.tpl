{{/* What selects the gateway where a resource takes a Gateway by its name. */}}
{{- define "inference-picker.target" -}}
{{- if .Values.gateway.name }}
targetRefs:
- group: gateway.networking.k8s.io
  kind: Gateway
  name: {{ .Values.gateway.name }}
{{- else }}
selector:
  matchLabels: {{- toYaml .Values.gateway.labels | nindent 4 }}
{{- end }}
{{- end }}

{{/* The labels of the gateway's pods; Istio puts the first one on those of a Gateway. */}}
{{- define "inference-picker.labels" -}}
{{- if .Values.gateway.name }}
gateway.networking.k8s.io/gateway-name: {{ .Values.gateway.name }}
{{- else }}
{{- toYaml .Values.gateway.labels }}
{{- end }}
{{- end }}

{{/* Where filters go: last before the router. */}}
{{- define "inference-picker.before-the-router" -}}
context: GATEWAY
listener:
  filterChain:
    filter:
      name: envoy.filters.network.http_connection_manager
      subFilter:
        name: envoy.filters.http.router
{{- end }}

{{/* The longest body that the plugin reads. */}}
{{- define "inference-picker.max-body-bytes" -}}
{{ .Values.configuration.maxBodyBytes | default 16777216 | int64 }}
{{- end }}
