{{- define "stream-guard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* A StatefulSet's pods have -<ordinal> added and controllers a hash of 10, so the name ends well before 63. */}}
{{- define "stream-guard.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What every object of the release carries; the consumer's pods and the test's pod alike. */}}
{{- define "stream-guard.instanceLabels" -}}
app.kubernetes.io/name: {{ include "stream-guard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "stream-guard.selectorLabels" -}}
{{ include "stream-guard.instanceLabels" . }}
app.kubernetes.io/component: consumer
{{- end -}}

{{- define "stream-guard.labels" -}}
{{ include "stream-guard.instanceLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "stream-guard.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "stream-guard.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "stream-guard.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The program's own defaults of the settings that the chart reasons with; a test holds them to the program. */}}
{{- define "stream-guard.defaults" -}}
delivery: {drain_timeout_s: 25, commit_timeout_s: 10, stop_timeout_s: 5}
engine: {start_timeout_s: 1800, tensor_parallel_size: 1, kind: vllm}
http: {port: 8080}
kafka: {rebalance_timeout_ms: 90000, session_timeout_ms: 45000, heartbeat_interval_ms: 3000}
policies: {reload: true}
{{- end -}}

{{/* A setting's value as text: (list $ "section" "name"). */}}
{{- define "stream-guard.setting" -}}
{{- $root := index . 0 -}}
{{- $default := dig (index . 1) (index . 2) "" (include "stream-guard.defaults" $root | fromYaml) -}}
{{- $value := dig (index . 1) (index . 2) $default $root.Values.config -}}
{{- if kindIs "string" $value }}{{ $value }}{{ else }}{{ toJson $value }}{{ end -}}
{{- end -}}

{{/*
The StatefulSet as the cluster has it, as JSON; an empty object where there is none, and where Helm asks no cluster
(`helm template`, `helm install --dry-run=client`).
*/}}
{{- define "stream-guard.live" -}}
{{- lookup "apps/v1" "StatefulSet" .Release.Namespace (include "stream-guard.fullname" .) | toJson -}}
{{- end -}}

{{/* Bytes of a quantity: the cluster writes 1024Mi as 1Gi. */}}
{{- define "stream-guard.bytes" -}}
{{- $factors := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- $number := regexFind "^[0-9.]+" (toString .) -}}
{{- printf "%.0f" (mulf (float64 $number) (float64 (get $factors (trimPrefix $number (toString .))))) -}}
{{- end -}}

{{/* The most replicas that there may be. */}}
{{- define "stream-guard.replicasMax" -}}
{{- if .Values.autoscaling.enabled -}}
{{- default .Values.kafka.partitions .Values.autoscaling.maxReplicas | int -}}
{{- else -}}
{{- .Values.replicas | int -}}
{{- end -}}
{{- end -}}

{{/* Seconds that a stop may take, deadline by deadline: the drain, its commit, three clients, and 10 for probes and spans. */}}
{{- define "stream-guard.stopSeconds" -}}
{{- $drain := include "stream-guard.setting" (list . "delivery" "drain_timeout_s") | float64 -}}
{{- $commit := include "stream-guard.setting" (list . "delivery" "commit_timeout_s") | float64 -}}
{{- $stop := include "stream-guard.setting" (list . "delivery" "stop_timeout_s") | float64 -}}
{{- addf $drain $commit (mulf 3 $stop) 10 -}}
{{- end -}}

{{- define "stream-guard.modelFromHub" -}}
{{- if has .Values.model.source (list "none" "newClaim") }}true{{ end -}}
{{- end -}}

{{- define "stream-guard.modelClaim" -}}
{{- if eq .Values.model.source "newClaim" -}}
{{- printf "%s-model" (include "stream-guard.fullname" .) -}}
{{- else -}}
{{- .Values.model.existingClaim.name -}}
{{- end -}}
{{- end -}}

{{/* What engine.model is: a hub's name, or the folder in the mounted volume. */}}
{{- define "stream-guard.model" -}}
{{- if include "stream-guard.modelFromHub" . -}}
{{- .Values.model.name -}}
{{- else -}}
{{- list "/models" (trimAll "/" .Values.model.path) | compact | join "/" -}}
{{- end -}}
{{- end -}}

{{- define "stream-guard.policiesPath" -}}
{{- if eq .Values.policies.source "path" -}}
{{- .Values.policies.path -}}
{{- else if eq .Values.policies.source "gitSync" -}}
{{- list "/etc/stream-guard/git/current" (trimAll "/" .Values.policies.gitSync.subPath) | compact | join "/" -}}
{{- else -}}
/etc/stream-guard/policies
{{- end -}}
{{- end -}}

{{/* The constraints as YAML: each gets the labels of this release's pods where it has no selector. */}}
{{- define "stream-guard.topologySpreadConstraints" -}}
{{- $labels := include "stream-guard.selectorLabels" . | fromYaml -}}
{{- $made := list -}}
{{- range .Values.topologySpreadConstraints -}}
{{- $made = append $made (hasKey . "labelSelector" | ternary . (merge (dict "labelSelector" (dict "matchLabels" $labels)) .)) -}}
{{- end -}}
{{- toYaml $made -}}
{{- end -}}
