{{- define "stream-guard.consoleName" -}}
{{- printf "%s-console" (include "stream-guard.fullname" .) -}}
{{- end -}}

{{- define "stream-guard.consoleSelectorLabels" -}}
{{ include "stream-guard.instanceLabels" . }}
app.kubernetes.io/component: console
{{- end -}}

{{- define "stream-guard.consoleLabels" -}}
{{ include "stream-guard.labels" . }}
app.kubernetes.io/component: console
{{- end -}}

{{/* The headless Service's name has the address of every replica, ready or not, and the console asks each of them. */}}
{{- define "stream-guard.consoleMetricsUrl" -}}
{{- printf "http://%s.%s.svc:%s/metrics" (include "stream-guard.fullname" .) .Release.Namespace (include "stream-guard.setting" (list . "http" "port")) -}}
{{- end -}}

{{- define "stream-guard.consoleIssuer" -}}
{{- dig "oidc" "issuer" "" .Values.console.settings -}}
{{- end -}}

{{- define "stream-guard.consoleEnv" -}}
{{- $console := .Values.console -}}
{{ include "stream-guard.env" . }}
- name: STREAM_GUARD_CONSOLE__HOST
  value: "0.0.0.0"
- name: STREAM_GUARD_CONSOLE__PORT
  value: "8095"
- name: STREAM_GUARD_CONSOLE__PUBLIC_URL
  value: {{ $console.publicUrl | quote }}
{{- with $console.tokensSecret }}
{{- if .name }}
- name: STREAM_GUARD_CONSOLE__TOKENS_FILE
  value: /etc/stream-guard/console-tokens/{{ .key }}
{{- end }}
{{- end }}
- name: STREAM_GUARD_CONSOLE__METRICS_URLS
  value: {{ list (include "stream-guard.consoleMetricsUrl" .) | toJson | quote }}
- name: STREAM_GUARD_POLICIES__PATH
  value: {{ include "stream-guard.policiesPath" . | quote }}
{{- with $console.databaseSecret }}
{{- if .name }}
- name: STREAM_GUARD_REVIEW__DATABASE
  valueFrom: {secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}}
{{- end }}
{{- end }}
{{- range $name, $value := $console.settings }}
{{- if not (kindIs "invalid" $value) }}
{{- if and (eq $name "oidc") $console.oidcSecret.name }}
{{- /* Within the same variable: of two, the one that comes later would win. */}}
{{- $value = merge (dict "client_secret_file" (printf "/etc/stream-guard/console-oidc/%s" $console.oidcSecret.key)) $value }}
{{- end }}
- name: STREAM_GUARD_CONSOLE__{{ upper $name }}
  value: {{ if kindIs "string" $value }}{{ quote $value }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- end }}
# The root file system is read-only; the database of reviews is here, unless it is elsewhere.
- name: HOME
  value: /var/lib/stream-guard
- name: USER
  value: stream-guard
{{- with $console.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "stream-guard.consolePodSpec" -}}
{{- $console := .Values.console -}}
serviceAccountName: {{ include "stream-guard.consoleName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $console.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $console.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $console.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq .Values.policies.source "gitSync" }}
initContainers:
  - name: policies-first
    {{- include "stream-guard.gitSync" (list . true) | nindent 4 }}
{{- end }}
containers:
  - name: console
    image: {{ include "stream-guard.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [console]
    env:
      {{- include "stream-guard.consoleEnv" . | nindent 6 }}
    ports:
      - {name: pages, containerPort: 8095, protocol: TCP}
    livenessProbe:
      httpGet: {path: /livez, port: pages}
      {{- toYaml .Values.livenessProbe | nindent 6 }}
    readinessProbe:
      httpGet: {path: /readyz, port: pages}
      {{- toYaml .Values.readinessProbe | nindent 6 }}
    resources:
      {{- toYaml $console.resources | nindent 6 }}
    securityContext:
      {{- toYaml .Values.securityContext | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: data, mountPath: /var/lib/stream-guard}
      {{- if $console.tokensSecret.name }}
      - {name: console-tokens, mountPath: /etc/stream-guard/console-tokens, readOnly: true}
      {{- end }}
      {{- if $console.oidcSecret.name }}
      - {name: console-oidc, mountPath: /etc/stream-guard/console-oidc, readOnly: true}
      {{- end }}
      {{- if eq .Values.policies.source "gitSync" }}
      - {name: policies, mountPath: /etc/stream-guard/git, readOnly: true}
      {{- else if ne .Values.policies.source "path" }}
      - {name: policies, mountPath: /etc/stream-guard/policies, readOnly: true}
      {{- end }}
      {{- include "stream-guard.kafkaVolumeMounts" . | nindent 6 }}
      {{- with $console.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  {{- if eq .Values.policies.source "gitSync" }}
  - name: policies-sync
    {{- include "stream-guard.gitSync" (list . false) | nindent 4 }}
  {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 2Gi}
  - name: data
    emptyDir: {sizeLimit: {{ $console.dataSize | quote }}}
  {{- with $console.tokensSecret.name }}
  - name: console-tokens
    secret: {secretName: {{ . | quote }}, defaultMode: 0440}
  {{- end }}
  {{- with $console.oidcSecret.name }}
  - name: console-oidc
    secret: {secretName: {{ . | quote }}, defaultMode: 0440}
  {{- end }}
  {{- include "stream-guard.policiesVolume" . | nindent 2 }}
  {{- include "stream-guard.kafkaVolumes" . | nindent 2 }}
  {{- with $console.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "stream-guard.checkConsole" -}}
{{- $console := .Values.console -}}
{{- if $console.enabled -}}
{{- if not $console.publicUrl -}}
{{- fail "console.publicUrl is required with console.enabled: the address that people type, such as https://console.example.org; requests that name another host are refused" -}}
{{- end -}}
{{- $issuer := include "stream-guard.consoleIssuer" . -}}
{{- if not (or $console.tokensSecret.name $issuer) -}}
{{- fail "console.tokensSecret.name is required with console.enabled: a Secret whose key has one ROLE PSEUDONYM TOKEN a line; or let people sign in at console.settings.oidc.issuer" -}}
{{- end -}}
{{- if and $console.oidcSecret.name (not $issuer) -}}
{{- fail "console.oidcSecret.name needs console.settings.oidc.issuer" -}}
{{- end -}}
{{- $seen := dict -}}
{{- range include "stream-guard.consoleEnv" . | fromYamlArray -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "console: %s is set twice; use the chart's value for it, or one of config, console.settings and console.extraEnv" .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- end -}}
{{- end -}}
