import gradio as gr
def build(study): gr.HTML("soon")
