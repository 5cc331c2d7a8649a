{{/*
The program's environment, given to the consumer and to the test alike.

Settings are environment variables and no file, so that there is one way in: secrets come from the environment in any
case, `kubectl exec ... -- stream-guard check` sees the same settings without an option, and a change rolls the pods.
Lists and tables are JSON there, and so are numbers: Helm holds every number as a float.
*/}}
{{- define "stream-guard.env" -}}
{{- $security := .Values.kafka.security -}}
- name: STREAM_GUARD_KAFKA__BOOTSTRAP_SERVERS
  value: {{ .Values.kafka.bootstrapServers | quote }}
{{- if .Values.kafka.topicPattern }}
- name: STREAM_GUARD_KAFKA__TOPIC_PATTERN
  value: {{ .Values.kafka.topicPattern | quote }}
{{- else }}
- name: STREAM_GUARD_KAFKA__TOPICS
  value: {{ toJson .Values.kafka.topics | quote }}
{{- end }}
- name: STREAM_GUARD_KAFKA__GROUP_ID
  value: {{ .Values.kafka.groupId | quote }}
- name: STREAM_GUARD_KAFKA__SECURITY__PROTOCOL
  value: {{ $security.protocol }}
{{- with $security.saslMechanism }}
- name: STREAM_GUARD_KAFKA__SECURITY__SASL_MECHANISM
  value: {{ . }}
{{- end }}
{{- with $security.saslSecret }}
{{- if .name }}
- name: STREAM_GUARD_KAFKA__SECURITY__USERNAME
  valueFrom: {secretKeyRef: {name: {{ .name | quote }}, key: {{ .usernameKey | quote }}}}
# A file, so that a rotated password is read at the next connection.
- name: STREAM_GUARD_KAFKA__SECURITY__PASSWORD_FILE
  value: /etc/stream-guard/kafka-sasl/{{ .passwordKey }}
{{- end }}
{{- end }}
{{- with $security.oauthTokenHook }}
- name: STREAM_GUARD_KAFKA__SECURITY__OAUTH_TOKEN_HOOK
  value: {{ . | quote }}
{{- end }}
{{- with $security.oauthTokenFile }}
- name: STREAM_GUARD_KAFKA__SECURITY__OAUTH_TOKEN_FILE
  value: {{ . | quote }}
{{- end }}
{{- if $security.caSecret.name }}
- name: STREAM_GUARD_KAFKA__SECURITY__SSL_CAFILE
  value: /etc/stream-guard/kafka-ca/{{ $security.caSecret.key }}
{{- end }}
{{- with $security.clientSecret }}
{{- if .name }}
- name: STREAM_GUARD_KAFKA__SECURITY__SSL_CERTFILE
  value: /etc/stream-guard/kafka-client/{{ .certKey }}
- name: STREAM_GUARD_KAFKA__SECURITY__SSL_KEYFILE
  value: /etc/stream-guard/kafka-client/{{ .keyKey }}
{{- with .keyPasswordKey }}
- name: STREAM_GUARD_KAFKA__SECURITY__SSL_KEY_PASSWORD_FILE
  value: /etc/stream-guard/kafka-client/{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- if not $security.checkHostname }}
- name: STREAM_GUARD_KAFKA__SECURITY__SSL_CHECK_HOSTNAME
  value: "false"
{{- end }}
{{- range $section, $settings := .Values.config }}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
- name: STREAM_GUARD_{{ upper $section }}__{{ upper $name }}
  value: {{ if kindIs "string" $value }}{{ quote $value }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What only the consumer is told. */}}
{{- define "stream-guard.consumerEnv" -}}
{{ include "stream-guard.env" . }}
{{- if .Values.kafka.staticMembership }}
- name: STREAM_GUARD_KAFKA__GROUP_INSTANCE_ID
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}
# Probes and scrapes come from outside the pod.
- name: STREAM_GUARD_HTTP__HOST
  value: "0.0.0.0"
- name: STREAM_GUARD_POLICIES__PATH
  value: {{ include "stream-guard.policiesPath" . | quote }}
- name: STREAM_GUARD_ENGINE__MODEL
  value: {{ include "stream-guard.model" . | quote }}
# The root file system is read-only, and vLLM, Torch, Triton and CUDA keep what they compile under HOME.
- name: HOME
  value: /var/lib/stream-guard
# Another user id than the image's own has no name there, and Torch asks for one.
- name: USER
  value: stream-guard
{{- if eq .Values.model.source "newClaim" }}
- name: HF_HOME
  value: /models
{{- end }}
{{- if and (include "stream-guard.modelFromHub" .) .Values.model.hubTokenSecret.name }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.model.hubTokenSecret.name | quote }}, key: {{ .Values.model.hubTokenSecret.key | quote }}}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Kafka's password and certificates, for the consumer and the test. */}}
{{- define "stream-guard.kafkaVolumes" -}}
{{- with .Values.kafka.security.saslSecret.name }}
- name: kafka-sasl
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.kafka.security.caSecret.name }}
- name: kafka-ca
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.kafka.security.clientSecret.name }}
- name: kafka-client
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "stream-guard.kafkaVolumeMounts" -}}
{{- if .Values.kafka.security.saslSecret.name }}
- {name: kafka-sasl, mountPath: /etc/stream-guard/kafka-sasl, readOnly: true}
{{- end }}
{{- if .Values.kafka.security.caSecret.name }}
- {name: kafka-ca, mountPath: /etc/stream-guard/kafka-ca, readOnly: true}
{{- end }}
{{- if .Values.kafka.security.clientSecret.name }}
- {name: kafka-client, mountPath: /etc/stream-guard/kafka-client, readOnly: true}
{{- end }}
{{- end -}}
