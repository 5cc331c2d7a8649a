{{- define "stream-guard.podSpec" -}}
serviceAccountName: {{ include "stream-guard.serviceAccountName" . }}
automountServiceAccountToken: false
# Without them a Service named like a section of the settings would look like a setting.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- include "stream-guard.topologySpreadConstraints" . | nindent 2 }}
{{- end }}
{{- if eq .Values.policies.source "gitSync" }}
# Once before the program starts, which refuses to start without policies; then beside it, for edits.
initContainers:
  - name: policies-first
    {{- include "stream-guard.gitSync" (list . true) | nindent 4 }}
{{- end }}
containers:
  - name: stream-guard
    image: {{ include "stream-guard.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    # The image's entry point, which puts in place what was compiled while it was built and then becomes the program.
    args: [run]
    env:
      {{- include "stream-guard.consumerEnv" . | nindent 6 }}
    {{- with .Values.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - {name: http, containerPort: {{ include "stream-guard.setting" (list . "http" "port") }}, protocol: TCP}
    # Ready is: the model is warm and the group joined. Until then nothing else is asked, however long the model loads.
    startupProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: {{ .Values.startupProbe.periodSeconds }}
      timeoutSeconds: 5
      failureThreshold: {{ .Values.startupProbe.failureThreshold }}
    livenessProbe:
      httpGet: {path: /livez, port: http}
      {{- toYaml .Values.livenessProbe | nindent 6 }}
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      {{- toYaml .Values.readinessProbe | nindent 6 }}
    resources:
      {{- include "stream-guard.resources" . | nindent 6 }}
    securityContext:
      {{- toYaml .Values.securityContext | nindent 6 }}
    volumeMounts:
      {{- include "stream-guard.volumeMounts" . | nindent 6 }}
  {{- if eq .Values.policies.source "gitSync" }}
  - name: policies-sync
    {{- include "stream-guard.gitSync" (list . false) | nindent 4 }}
  {{- end }}
volumes:
  {{- include "stream-guard.volumes" . | nindent 2 }}
{{- end -}}

{{/* The resources of the values, and the GPUs, of which requests and limits are the same. */}}
{{- define "stream-guard.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if gt (int .Values.gpu.count) 0 -}}
{{- $gpu := dict .Values.gpu.resourceName (toString .Values.gpu.count) -}}
{{- $resources = merge $resources (dict "requests" $gpu "limits" $gpu) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "stream-guard.volumeMounts" -}}
- {name: shared-memory, mountPath: /dev/shm}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /var/lib/stream-guard}
{{- if eq .Values.policies.source "gitSync" }}
- {name: policies, mountPath: /etc/stream-guard/git, readOnly: true}
{{- else if ne .Values.policies.source "path" }}
# The whole volume and no subPath: only so does an edit of the ConfigMap arrive, by the swap of a symlink.
- {name: policies, mountPath: /etc/stream-guard/policies, readOnly: true}
{{- end }}
{{- if ne .Values.model.source "none" }}
- {name: model, mountPath: /models, readOnly: {{ ne .Values.model.source "newClaim" }}}
{{- end }}
{{- include "stream-guard.kafkaVolumeMounts" . }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "stream-guard.volumes" -}}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory.size | quote }}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- if eq .Values.cache.type "emptyDir" }}
- name: cache
  emptyDir: {sizeLimit: {{ .Values.cache.size | quote }}}
{{- end }}
{{- include "stream-guard.policiesVolume" . }}
{{- with .Values.model }}
{{- if has .source (list "existingClaim" "newClaim") }}
- name: model
  persistentVolumeClaim: {claimName: {{ include "stream-guard.modelClaim" $ | quote }}, readOnly: {{ eq .source "existingClaim" }}}
{{- else if eq .source "hostPath" }}
- name: model
  hostPath: {path: {{ .hostPath.path | quote }}, type: Directory}
{{- else if eq .source "image" }}
- name: model
  image: {reference: {{ .image.reference | quote }}, pullPolicy: {{ .image.pullPolicy }}}
{{- end }}
{{- end }}
{{- include "stream-guard.kafkaVolumes" . }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "stream-guard.policiesVolume" -}}
{{- with .Values.policies }}
{{- if eq .source "values" }}
- name: policies
  configMap:
    name: {{ include "stream-guard.fullname" $ }}-policies
    items:
      {{- if .routes }}
      - {key: routes.yaml, path: routes.yaml}
      {{- end }}
      {{- range $id, $file := .files }}
      - {key: {{ printf "%s.policy.md" $id | quote }}, path: {{ printf "%s/policy.md" $id | quote }}}
      {{- range $part, $name := dict "metadata" "policy.yaml" "rules" "rules.yaml" "calibration" "calibration.json" }}
      {{- if get $file $part }}
      - {key: {{ printf "%s.%s" $id $name | quote }}, path: {{ printf "%s/%s" $id $name | quote }}}
      {{- end }}
      {{- end }}
      {{- end }}
{{- else if eq .source "existingConfigMap" }}
- name: policies
  configMap:
    name: {{ .existingConfigMap.name | quote }}
    items:
      {{- toYaml .existingConfigMap.items | nindent 6 }}
{{- else if eq .source "gitSync" }}
- name: policies
  emptyDir: {sizeLimit: 1Gi}
{{- with .gitSync.secret.name }}
- name: git-secret
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* git-sync's container but for its name: (list $ true) syncs once and ends, (list $ false) goes on. */}}
{{- define "stream-guard.gitSync" -}}
{{- $once := index . 1 -}}
{{- with (index . 0).Values.policies.gitSync -}}
image: {{ printf "%s:%s" .image.repository .image.tag | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
args:
  - --repo={{ .repo }}
  - --ref={{ .ref }}
  - --root=/git
  - --link=current
  - --depth=1
  {{- if $once }}
  - --one-time
  {{- else }}
  - --period={{ .periodSeconds }}s
  # For ever: the last good policies stay live while the repository is away.
  - --max-failures=-1
  {{- end }}
  {{- if .secret.name }}
  {{- if eq .secret.type "ssh" }}
  - --ssh-key-file=/etc/git-secret/ssh
  - --ssh-known-hosts-file=/etc/git-secret/known_hosts
  {{- else }}
  - --password-file=/etc/git-secret/password
  {{- end }}
  {{- end }}
{{- if and .secret.name (eq .secret.type "basic") }}
env:
  - name: GITSYNC_USERNAME
    valueFrom: {secretKeyRef: {name: {{ .secret.name | quote }}, key: username}}
{{- end }}
resources:
  {{- toYaml .resources | nindent 2 }}
# Its image's own user, who has a name there, as ssh wants; the volume is the pod's group's.
securityContext:
  runAsUser: 65533
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: policies, mountPath: /git}
  - {name: tmp, mountPath: /tmp}
  {{- if .secret.name }}
  - {name: git-secret, mountPath: /etc/git-secret, readOnly: true}
  {{- end }}
{{- end -}}
{{- end -}}
