#!/usr/bin/env python3
"""Writes events/: envelopes as gateways and schedules send them, with our requests in them.

The envelopes come from `sam local generate-event` (pip install aws-sam-cli), so that they are what the platform documents and
not what we believe. Usage: scripts/events.py [SAM [DIRECTORY]]; SAM is the program, `sam` if left out (.tools/sam/run after
scripts/setup.sh test); DIRECTORY is written instead of events/.
"""
import base64
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

SAM = sys.argv[1] if len(sys.argv) > 1 else "sam"
EVENTS = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).resolve().parents[1] / "events"
REQUEST = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
PAGE = "https://example.com/class?room=7"
# Tasks that the tests put there first, one in each status that matters.
NORMAL, RECORDING, PAUSED, CANCELED, FINISHED, FAILED = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 7))
NOBODY = "00000000-0000-4000-8000-000000000099"


def generate(*what):
    env = {**os.environ, "SAM_CLI_TELEMETRY": "0"}
    return json.loads(subprocess.run([SAM, "local", "generate-event", *what], check=True, capture_output=True, env=env).stdout)


V2 = generate("apigateway", "http-api-proxy")
V1 = generate("apigateway", "aws-proxy")
SCHEDULE = generate("cloudwatch", "scheduled-event")


def v2(body, encode=False, path="/record", method="POST"):
    event = copy.deepcopy(V2)
    event["rawPath"] = event["requestContext"]["http"]["path"] = path
    event["requestContext"]["http"]["method"] = method
    event["requestContext"]["requestId"] = REQUEST
    event["headers"] = {"content-type": "application/json", "host": event["requestContext"]["domainName"]}
    return with_body(event, body, encode)


def v1(body, encode=False, path="/record", method="POST"):
    event = copy.deepcopy(V1)
    event["path"] = path
    event["requestContext"]["path"] = "/prod" + path
    event["requestContext"]["requestId"] = REQUEST
    event["httpMethod"] = event["requestContext"]["httpMethod"] = method
    return with_body(event, body, encode)


def function_url(body):
    """Payload 2.0 without what only an HTTP API has (AWS Lambda developer guide, "Invoking function URLs")."""
    event = v2(body, path="/")
    for only in ("pathParameters", "stageVariables", "cookies"):
        event.pop(only, None)
    event["requestContext"].pop("authentication", None)
    event["requestContext"].pop("authorizer", None)
    event["requestContext"]["domainName"] = "abcdefghijklmnop.lambda-url.us-east-1.on.aws"
    return event


def with_body(event, body, encode):
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    event["body"] = base64.b64encode(text.encode()).decode() if encode else text
    event["isBase64Encoded"] = encode
    return event


def act(action, **data):
    return {"Action": action, "Data": data}


def start(**data):
    """With a token, so that the id of the task is always the same."""
    return act("Start", **{"RecordURL": PAGE, "ClientToken": "fixture", **data})


def video(**values):
    return start(Output={"Video": values})


def cos(**values):
    return start(Output={"Cos": values})


def vod(**values):
    return start(Output={"Vod": values})


VOD = {
    "MediaInfo": {"MediaName": "Algebra 7b", "ExpireTime": "2027-01-01T00:00:00Z", "StorageRegion": "ap-chongqing",
                  "ClassId": 7, "SourceContext": "room 12"},
    "ProcedureInfo": {"Procedure": "LongVideoPreset", "SessionContext": "term 1"},
    "SubAppId": "1500012345",
}

EVERYTHING = start(
    ManualStart=True, ReadyTimeout=60, Width=1920, Height=1080, MaxDurationLimit=3600, StorageType="cos",
    CallbackURL="https://example.com/done", CallbackEvents=["callback"], PageTitle="Algebra 7b",
    Headers={"UserAgent": "recorder"},
    Output={"Cos": {"Domain": "cdn.example.com", "Bucket": "films", "Region": "eu-west-1", "TargetDir": "2026/11",
                    "TargetName": "algebra.mp4"},
            "Video": {"Muxer": "mp4", "FrameRate": 25, "Bitrate": 4000, "AudioBitrate": 192, "ThumbnailInterval": 10}},
)

SITUATIONS = {
    "start": v2(start()),
    "start-without-token": v2(act("Start", RecordURL=PAGE)),
    "start-again": v2(act("Start", RecordURL=PAGE, ClientToken="used")),
    "start-everything": v2(EVERYTHING),
    "start-callback-events": v2(start(CallbackURL="https://example.com/", CallbackEvents=["recording", "finished"])),
    "start-vod": v2(vod(**VOD)),
    "error-vod-context": v2(vod(MediaInfo={"SourceContext": "x" * 251})),
    "error-vod-expiry": v2(vod(MediaInfo={"ExpireTime": "tomorrow"})),
    "error-vod-sub-app": v2(vod(SubAppId="main")),
    "start-vod-hls": v2(start(Output={"Vod": VOD, "Video": {"Muxer": "hls"}})),
    "start-defaults-named": v2(start(Width=0, Height=0, MaxDurationLimit=0, ManualStart=None, Output={})),
    "start-hls": v2(video(Muxer="mp4,hls", EncryptKey="MDEyMzQ1Njc4OWFiY2RlZg==", EncryptIv="0x000102030405060708090a0b0c0d0e0f",
                          AuthUrl="https://example.com/key?class=7b")),
    "error-thumbnail-interval": v2(video(ThumbnailInterval=1)),
    "error-pictures-vod": v2(start(Output={"Vod": VOD, "Video": {"Poster": True}})),
    "start-v1": v1(start()),
    "start-v1-stage": v1(start(), path="/prod/record/"),
    "start-v1-base64": v1(start(), encode=True),
    "start-v2-base64": v2(start(PageTitle="代数 7b 🎓"), encode=True),
    "start-function-url": function_url(start()),
    "pause": v2(act("Pause", TaskID=RECORDING)),
    "pause-before-the-start": v2(act("Pause", TaskID=NORMAL)),
    "pause-when-paused": v2(act("Pause", TaskID=PAUSED)),
    "resume": v2(act("Resume", TaskID=PAUSED)),
    "refresh": v2(act("Refresh", TaskID=RECORDING)),
    "refresh-when-finished": v2(act("Refresh", TaskID=FINISHED)),
    "stop": v2(act("Stop", TaskID=RECORDING)),
    "stop-when-finished": v2(act("Stop", TaskID=FINISHED)),
    "describe": v2(act("Describe", TaskID=RECORDING)),
    "describe-finished": v1(act("Describe", TaskID=FINISHED)),
    "describe-failed": v2(act("Describe", TaskID=FAILED)),
    "list": v2(act("List")),
    "list-running": v2(act("List", Status="running", Limit=2)),
    "list-finished": v2(act("List", Status="finished")),
    "preflight": v2("", method="OPTIONS"),
    "recorder": {"Recorder": {"TaskID": NORMAL}},
    "schedule": SCHEDULE,
    "error-not-json": v2("{\"Action\": \"Start\""),
    "error-not-an-object": v2("[]"),
    "error-empty-body": v2(""),
    "error-not-base64": {**v2(""), "body": "%%%", "isBase64Encoded": True},
    "error-action-missing": v2({"Data": {}}),
    "error-action-unknown": v2(act("Record", RecordURL=PAGE)),
    "error-data-not-an-object": v2({"Action": "Start", "Data": PAGE}),
    "error-url-missing": v2(act("Start")),
    "error-url-relative": v2(act("Start", RecordURL="example.com/class")),
    "error-url-scheme": v2(act("Start", RecordURL="file:///etc/passwd")),
    "error-field-case": v2(act("Start", RecordUrl=PAGE)),
    "error-width-odd": v2(start(Width=1281)),
    "error-height-large": v2(start(Height=4096)),
    "error-width-text": v2(start(Width="1280")),
    "error-limit-large": v2(start(MaxDurationLimit=36001)),
    "error-storage-unknown": v2(start(StorageType="disk")),
    "error-storage-not-mounted": v2(start(StorageType="cfs")),
    "error-target-dir": v2(cos(TargetDir="../other")),
    "error-target-name": v2(cos(TargetName="a/b.mp4")),
    "error-domain": v2(cos(Domain="https://cdn.example.com")),
    "error-frame-rate": v2(video(FrameRate=29)),
    "error-bitrate": v2(video(Bitrate=99)),
    "error-muxer": v2(video(Muxer="webm")),
    "error-encryption": v2(video(EncryptKey="0123456789abcdef", AuthUrl="https://example.com/key")),
    "error-encryption-auth-url": v2(video(Muxer="hls", EncryptKey="0123456789abcdef")),
    "error-encryption-key": v2(video(Muxer="hls", EncryptKey="0123", AuthUrl="https://example.com/key")),
    "error-encryption-iv": v2(video(Muxer="hls", EncryptKey="0123456789abcdef", EncryptIv="01", AuthUrl="https://example.com/key")),
    "error-auth-url-alone": v2(video(Muxer="hls", AuthUrl="https://example.com/key")),
    "error-callback-url": v2(start(CallbackURL="ftp://example.com/")),
    "error-callback-events": v2(start(CallbackURL="https://example.com/", CallbackEvents=["done"])),
    "error-token-long": v2(start(ClientToken="x" * 65)),
    "error-token-conflict": v2(act("Start", RecordURL=PAGE, Width=640, ClientToken="used")),
    "error-task-missing": v2(act("Stop")),
    "error-task-unknown": v2(act("Stop", TaskID=NOBODY)),
    "error-task-malformed": v2(act("Describe", TaskID="../../etc")),
    "error-status-pause": v2(act("Pause", TaskID=CANCELED)),
    "error-status-resume": v2(act("Resume", TaskID=FINISHED)),
    "error-list-status": v2(act("List", Status="recording")),
    "error-list-limit": v2(act("List", Limit=0)),
    "error-list-token": v2(act("List", NextToken="nonsense")),
    "error-method": v2("", method="GET"),
    "error-event-unknown": {"Records": [{"eventSource": "aws:sqs"}]},
    "error-recorder-without-task": {"Recorder": {}},
}

EVENTS.mkdir(exist_ok=True)
for old in EVENTS.glob("*.json"):
    old.unlink()
for name, event in SITUATIONS.items():
    (EVENTS / f"{name}.json").write_text(json.dumps(event, indent=2, ensure_ascii=False) + "\n")
print(f"{len(SITUATIONS)} events in {EVENTS}")
