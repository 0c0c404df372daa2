# Makes this notebook ready: in a clone, on a laptop, or on Colab, whose own PyTorch stays as it is.
import os
import subprocess
import sys
from pathlib import Path

PROJECT = os.environ.get("TRITUNE", "")  # outside of a clone: a git address of tritune, or its folder

if not (homes := [folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "train_sft.py").is_file()]):
    homes = [Path("tritune").resolve()]
    if not homes[0].is_dir():
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", PROJECT, homes[0]], check=True)
    requirements = homes[0] / "notebooks" / "requirements.txt"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
os.chdir(homes[0])
sys.path.insert(0, str(homes[0]))

from model.device import choose_device, choose_dtype

device = choose_device()
print(f"{device}, {choose_dtype(device)}; {os.cpu_count()} processors")
