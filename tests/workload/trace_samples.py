"""Small trace files of each format, without a flaw, and how to read one from a temporary folder."""

from helpers.workload.traces import load

MOONCAKE = (
    '{"timestamp": 0, "input_length": 1000, "output_length": 50, "hash_ids": [0, 1]}\n'
    '{"timestamp": 2500, "input_length": 1300, "output_length": 60, "hash_ids": [0, 2, 3]}\n'
    '{"timestamp": 3000, "input_length": 512, "output_length": 7, "hash_ids": [0]}\n'
)
AZURE_2023 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n"
    "2023-11-16 18:17:04.0319601,3180,8\n"
    "2023-11-17 18:17:03.9799600,110,27"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-12 00:00:00+00:00,200,20\n"
    "2024-05-12 00:00:00.001163+00:00,300,30\n"
    "2024-05-12 02:00:10+02:00,400,40\n"
)
BURSTGPT_6 = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n"
    "45,ChatGPT,1087,230,1317,Conversation log\n"
    "118,GPT-4,417,276,693,API log\n"
)
BURSTGPT_8 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "19440110.0,b-2,43,GPT-4,906,446,1352,Conversation log\n"
    "19440161.5,a-1,2,ChatGPT,36,29,65,Conversation log\n"
    "19440170.0,b-2,3,GPT-4,1400,10,1410,Conversation log\n"
    "19440192.0,,2,ChatGPT,36,29,65,API log\n"
)
OWN_CSV = (
    "arrival_s,prompt_tokens,output_tokens,session,tenant,slo_class,priority,prefix_blocks\n"
    "0.5,600,10,3,gold,interactive,-1,7 8\n"
    "1.25,512,20,,free,batch,2,7\n"
)
OWN_JSONL = (
    '{"id": 4, "arrival_s": 0, "prompt_tokens": 10, "output_tokens": 2}\n'
    '{"id": 9, "arrival_s": 1.5, "prompt_tokens": 30, "output_tokens": 2, "parent": 4, "think_time_s": 1.5}\n'
)


def written(tmp_path, content, name="trace.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def loaded(tmp_path, content, **arguments):
    return load(written(tmp_path, content), **arguments)
