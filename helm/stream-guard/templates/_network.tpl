{{/* What every pod may reach: DNS, the brokers, and the repository of the policies. */}}
{{- define "stream-guard.egress" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $ports := $policy.kafkaPorts -}}
{{- if not $ports -}}
{{- range splitList "," .Values.kafka.bootstrapServers -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (trim .) | int) -}}
{{- end -}}
{{- end -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
- ports:
    {{- range uniq $ports }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
  {{- with $policy.kafkaTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if eq .Values.policies.source "gitSync" }}
- ports: [{port: {{ ternary 22 443 (regexMatch "^(ssh://|[^/]+@)" .Values.policies.gitSync.repo) }}, protocol: TCP}]
{{- end }}
{{- end -}}
