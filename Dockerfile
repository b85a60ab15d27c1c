# One image for every service; docker-compose.yml says what each runs. Alone it runs everything on one machine:
#   docker build -t lowrank . && docker run -p 127.0.0.1:8000:8000 -v lowrank:/data lowrank
FROM python:3.11-slim

# Another place to look for torch. Without one, pip finds the build with CUDA, which also runs on machines without a
# GPU; the CPU build is 2 GB smaller, and its address is on PyTorch's page "Get started".
ARG PIP_EXTRA_INDEX_URL=""

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# bitsandbytes counts on the system's OpenMP.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 --create-home lowrank && install --directory --owner=lowrank --mode=700 /data

WORKDIR /app
COPY requirements.txt ./
COPY requirements ./requirements
RUN pip install -r requirements.txt
COPY . .

USER lowrank
ENV DATA_DIR=/data HOST=0.0.0.0 PORT=8000 HF_HOME=/data/huggingface
VOLUME /data
EXPOSE 8000
CMD ["python", "manage.py", "up"]
